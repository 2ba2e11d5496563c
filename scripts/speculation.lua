-- Speculation on one machine: text that stood somewhere before is proposed again, the model
-- verifies it in one pass, and the output is the model's own, token for token.
--
--   tightwad run scripts/speculation.lua [--set model=PATH.gguf] [--set draft=PATH.gguf]

local tw = require "tightwad"

local target = tw.model {
  path = tw.settings.model or "../models/smollm2-135m-instruct.gguf",
  name = "smollm2",
}

local drafters = { tw.lookup {} }
if tw.settings.draft then
  drafters[#drafters + 1] = tw.model { path = tw.settings.draft, name = "draft" }
end

return tw.serve {
  listen = "127.0.0.1:8088",
  models = {
    ["smollm2"] = tw.speculation { target = target, draft = drafters },
    ["smollm2-plain"] = target,
  },
}
