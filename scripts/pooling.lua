-- One model over several machines. On each of the others:
--
--   tightwad worker --listen 0.0.0.0:7711 --token SECRET
--
-- Here:
--
--   tightwad run scripts/pooling.lua --set model=PATH.gguf --set token=SECRET \
--     --set workers=http://192.168.1.21:7711,http://192.168.1.22:7711 [--set here=false]

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

return tw.serve {
  listen = "127.0.0.1:8088",
  models = { [pool.name] = pool },
}
