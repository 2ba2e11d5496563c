-- One model over several machines, with speculation on top. One pass over the pool verifies several tokens, so their
-- cost on the network is paid once. On each other machine:
--
--   tightwad worker --listen 0.0.0.0:7711 --token SECRET
--
-- On this machine:
--
--   tightwad run scripts/combined.lua --set model=PATH.gguf --set token=SECRET \
--     --set workers=tightwad://192.168.1.21:7711,tightwad://192.168.1.22:7711 [--set drafter=SMALL.gguf]

local tw = require "tightwad"

local args = tw.arg {
  model = {
    type = "path",
    default = "../models/smollm2-135m-instruct.gguf",
    help = "The GGUF file of the model, on this machine.",
  },
  drafter = { type = "path", help = "The GGUF file of a smaller model of the same family, to draft beside lookup." },
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

local drafters = { tw.lookup {} }
if args.drafter then
  drafters[#drafters + 1] = tw.model { path = args.drafter, name = "drafter" }
end

return tw.serve {
  listen = "127.0.0.1:8088",
  models = {
    [pool.name] = tw.speculation { target = pool, drafters = drafters },
    [pool.name .. "-plain"] = pool,
  },
}
