-- A small model answers short questions. A larger model with speculation answers long ones.

local tw = require "tightwad"

local args = tw.arg {
  small = {
    type = "path",
    default = "../../models/qwen2.5-coder-0.5b-instruct.gguf",
    help = "The GGUF file of the model for short questions.",
  },
  large = {
    type = "path",
    default = "../../models/qwen2.5-coder-1.5b-instruct.gguf",
    help = "The GGUF file of the model for long questions.",
  },
  limit = { type = "integer", default = 200, help = "The length in bytes from which a question is long." },
}

local small = tw.model { path = args.small, name = "small" }
local large = tw.model { path = args.large, name = "large" }
local fast = tw.speculation { target = large, drafters = { tw.lookup {} } }

return tw.serve {
  models = {
    ["auto"] = function(req)
      if #req.prompt < args.limit then return small:generate(req) end
      return fast:generate(req)
    end,
  },
}
