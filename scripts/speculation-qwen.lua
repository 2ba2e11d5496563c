-- Speculation with two models of one family: 0.5B drafts for 1.5B, beside lookup.
--
--   tightwad run scripts/speculation-qwen.lua

local tw = require "tightwad"

local target = tw.model {
  path = tw.settings.model or "../models/qwen2.5-coder-1.5b-instruct.gguf",
  name = "qwen2.5-coder-1.5b",
}
local draft = tw.model {
  path = tw.settings.draft or "../models/qwen2.5-coder-0.5b-instruct.gguf",
  name = "qwen2.5-coder-0.5b",
}

return tw.serve {
  listen = "127.0.0.1:8088",
  models = {
    ["qwen2.5-coder"] = tw.speculation { target = target, draft = { tw.lookup {}, draft } },
    ["qwen2.5-coder-plain"] = target,
    ["qwen2.5-coder-small"] = draft,
  },
}
