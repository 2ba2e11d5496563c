-- One model over several machines, with speculation on top: one verification is one pass over the pool,
-- so the way to the workers is paid once for several tokens. On each of the other machines:
--
--   tightwad worker --listen 0.0.0.0:7711 --token SECRET
--
-- Here:
--
--   tightwad run scripts/combined.lua --set model=PATH.gguf --set token=SECRET \
--     --set workers=http://192.168.1.21:7711,http://192.168.1.22:7711 [--set draft=SMALL.gguf]

local tw = require "tightwad"

local workers = {}
for url in string.gmatch(tw.settings.workers or "", "[^,]+") do
  workers[#workers + 1] = url
end

local pool = tw.pooling {
  model = tw.settings.model or "../models/smollm2-135m-instruct.gguf",
  workers = workers,
  token = tw.settings.token,
  here = tw.settings.here ~= "false",
}

local drafters = { tw.lookup {} }
if tw.settings.draft then
  drafters[#drafters + 1] = tw.model { path = tw.settings.draft, name = "draft" }
end

return tw.serve {
  listen = "127.0.0.1:8088",
  models = {
    [pool.name] = tw.speculation { target = pool, draft = drafters },
    [pool.name .. "-plain"] = pool,
  },
}
