-- Two models over the same workers, which need not have memory for both. The first request for a model loads it. If
-- the other model takes the memory, that model finishes its requests and is unloaded. A model that nothing uses for ten
-- minutes is unloaded too. On each other machine:
--
--   tightwad worker --listen 0.0.0.0:7711 --token SECRET
--
-- On this machine:
--
--   tightwad run examples/pipelines/swap-models.lua --set token=SECRET \
--     --set workers=tightwad://192.168.1.21:7711,tightwad://192.168.1.22:7711

local tw = require "tightwad"

local args = tw.arg {
  workers = {
    type = "list",
    required = true,
    help = "Addresses such as tightwad://HOST:PORT#FINGERPRINT of machines that run `tightwad worker`.",
  },
  token = { type = "string", help = "The bearer token of the workers." },
  idle_timeout = {
    type = "number",
    default = 600,
    help = "The time in seconds without requests after which a model is unloaded.",
  },
}

local function pool(name, path)
  return tw.pooling {
    model = path,
    name = name,
    workers = args.workers,
    token = args.token,
    include_host = false,
    load = "on_demand",
    idle_timeout = args.idle_timeout,
  }
end

return tw.serve {
  models = {
    ["small"] = pool("small", "../../models/qwen2.5-coder-0.5b-instruct.gguf"),
    ["large"] = pool("large", "../../models/qwen2.5-coder-1.5b-instruct.gguf"),
  },
}
