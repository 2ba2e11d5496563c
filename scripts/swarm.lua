-- A model that other machines have: what is missing of it here is pulled from all of them, and then it is served. On a
-- machine that has the file; the command says NAME@DIGEST:
--
--   tightwad swarm seed --listen 0.0.0.0:7712 --token SECRET PATH.gguf
--
-- Here; without peers, whoever makes itself known is asked:
--
--   tightwad run scripts/swarm.lua --set model=NAME@DIGEST --set token=SECRET \
--     [--set peers=http://192.168.1.20:7712,http://192.168.1.21:7712]

local tw = require "tightwad"

if not tw.settings.model then
  error("name the model: --set model=NAME@DIGEST, as `tightwad swarm status` shows it", 0)
end

local peers = {}
for url in string.gmatch(tw.settings.peers or "", "[^,]+") do
  peers[#peers + 1] = url
end

local model = tw.model {
  -- The whole digest pins it: what comes is that file, or nothing.
  swarm = tw.settings.model,
  peers = peers,
  token = tw.settings.token,
}

return tw.serve {
  listen = "127.0.0.1:8088",
  models = { [model.name] = model },
}
