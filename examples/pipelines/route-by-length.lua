-- Short questions go to a small model, long ones to a larger one with speculation.

local tw = require "tightwad"

local small = tw.model { path = "../../models/qwen2.5-coder-0.5b-instruct.gguf", name = "small" }
local large = tw.model { path = "../../models/qwen2.5-coder-1.5b-instruct.gguf", name = "large" }
local fast = tw.speculation { target = large, draft = { tw.lookup {} } }

return tw.serve {
  models = {
    ["auto"] = function(req)
      if #req.prompt < 200 then return small:generate(req) end
      return fast:generate(req)
    end,
  },
}
