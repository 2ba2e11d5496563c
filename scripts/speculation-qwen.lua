-- Speculation with two models of one family: the 0.5B model and lookup draft for the 1.5B model.
--
--   tightwad run scripts/speculation-qwen.lua

local tw = require "tightwad"

local args = tw.arg {
  model = {
    type = "path",
    default = "../models/qwen2.5-coder-1.5b-instruct.gguf",
    help = "The GGUF file of the target.",
  },
  drafter = {
    type = "path",
    default = "../models/qwen2.5-coder-0.5b-instruct.gguf",
    help = "The GGUF file of the drafter.",
  },
}

local target = tw.model { path = args.model, name = "qwen2.5-coder-1.5b" }
local drafter = tw.model { path = args.drafter, name = "qwen2.5-coder-0.5b" }

return tw.serve {
  listen = "127.0.0.1:8088",
  models = {
    ["qwen2.5-coder"] = tw.speculation { target = target, drafters = { tw.lookup {}, drafter } },
    ["qwen2.5-coder-plain"] = target,
    ["qwen2.5-coder-small"] = drafter,
  },
}
