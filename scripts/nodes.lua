-- A target on another machine, drafted for here. On the other machine:
--
--   tightwad node --listen 0.0.0.0:7710 --token SECRET --model big=PATH.gguf
--
-- Here:
--
--   tightwad run scripts/nodes.lua --set url=http://192.168.1.20:7710 --set token=SECRET [--set draft=PATH.gguf]

local tw = require "tightwad"

if not tw.settings.url then
  -- No address was given: whoever makes itself known first.
  local found = tw.discover { seconds = 2 }
  for _, node in ipairs(found) do
    tw.log.info(node.name .. " at " .. node.url .. " lends " .. table.concat(node.models, ", "))
  end
  if not found[1] then
    error("no node makes itself known: give its address with --set url=http://HOST:7710", 0)
  end
  tw.settings.url = found[1].url
end

local target = tw.node {
  url = tw.settings.url,
  token = tw.settings.token,
  model = tw.settings.model,
}

local drafters = { tw.lookup {} }
if tw.settings.draft then
  drafters[#drafters + 1] = tw.model { path = tw.settings.draft, name = "draft" }
end

return tw.serve {
  listen = "127.0.0.1:8088",
  models = {
    [target.name] = tw.speculation { target = target, draft = drafters },
    [target.name .. "-plain"] = target,
  },
}
