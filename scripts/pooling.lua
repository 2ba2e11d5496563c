-- One model over several machines. On each other machine:
--
--   tightwad worker --listen 0.0.0.0:7711 --token SECRET
--
-- On this machine:
--
--   tightwad run scripts/pooling.lua --set model=PATH.gguf --set token=SECRET \
--     --set workers=tightwad://192.168.1.21:7711,tightwad://192.168.1.22:7711 [--set include_host=false]

local tw = require "tightwad"

local args = tw.arg {
  model = {
    type = "path",
    default = "../models/smollm2-135m-instruct.gguf",
    help = "The GGUF file of the model, on this machine.",
  },
  workers = { type = "list", help = "Addresses such as tightwad://HOST:PORT#FINGERPRINT of machines that run `tightwad worker`." },
  token = { type = "string", help = "The bearer token of the workers." },
  include_host = { type = "boolean", default = true, help = "Whether this machine holds layers too." },
}

local pool = tw.pooling {
  model = args.model,
  workers = args.workers,
  token = args.token,
  include_host = args.include_host,
}

return tw.serve {
  listen = "127.0.0.1:8088",
  models = { [pool.name] = pool },
}
