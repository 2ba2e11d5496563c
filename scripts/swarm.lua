-- A model that other machines have: the host pulls the missing blocks from all of them, and then serves the model. On
-- a machine that has the file (the command prints NAME@DIGEST):
--
--   tightwad swarm seed --listen 0.0.0.0:7712 --token SECRET PATH.gguf
--
-- On this machine:
--
--   tightwad run scripts/swarm.lua --set model=NAME@DIGEST --set token=SECRET \
--     --set peers=tightwad://192.168.1.20:7712,tightwad://192.168.1.21:7712

local tw = require "tightwad"

local args = tw.arg {
  model = {
    type = "string",
    required = true,
    help = "The model as NAME@DIGEST. `tightwad swarm status` shows it.",
  },
  peers = {
    type = "list",
    help = "Addresses such as tightwad://HOST:PORT#FINGERPRINT of machines that have the model. Default: the machines that discovery finds.",
  },
  token = { type = "string", help = "The bearer token of the peers in `peers`. Other machines never receive it." },
}

local model = tw.model {
  -- A complete digest pins the file: no other file can take its place.
  swarm = args.model,
  peers = args.peers,
  token = args.token,
}

return tw.serve {
  listen = "127.0.0.1:8088",
  models = { [model.name] = model },
}
