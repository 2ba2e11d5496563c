-- Two models over the same workers, which need not have room for both: each is loaded by its first request. Where
-- the other is in the way, that one finishes its requests and goes. Unused for ten minutes, a model goes by itself.
-- On each of the other machines:
--
--   tightwad worker --listen 0.0.0.0:7711 --token SECRET
--
-- Here:
--
--   tightwad run examples/pipelines/swap-models.lua --set token=SECRET \
--     --set workers=http://192.168.1.21:7711,http://192.168.1.22:7711

local tw = require "tightwad"

local workers = {}
for url in string.gmatch(tw.settings.workers or "", "[^,]+") do
  workers[#workers + 1] = url
end
if not workers[1] then
  error("no workers: give their addresses with --set workers=http://HOST:7711,http://HOST:7711", 0)
end

local function pool(name, path)
  return tw.pooling {
    model = path,
    name = name,
    workers = workers,
    token = tw.settings.token,
    here = false,
    load = "demand",
    ttl = 600,
  }
end

return tw.serve {
  models = {
    ["small"] = pool("small", "../../models/qwen2.5-coder-0.5b-instruct.gguf"),
    ["large"] = pool("large", "../../models/qwen2.5-coder-1.5b-instruct.gguf"),
  },
}
