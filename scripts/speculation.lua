-- Speculation on one machine: drafters propose tokens, and the model verifies them in one pass. The answer is the
-- model's own, token for token.
--
--   tightwad run scripts/speculation.lua [--set model=PATH.gguf] [--set drafter=PATH.gguf]

local tw = require "tightwad"

local args = tw.arg {
  model = {
    type = "path",
    default = "../models/smollm2-135m-instruct.gguf",
    help = "The GGUF file of the target.",
  },
  drafter = { type = "path", help = "The GGUF file of a smaller model of the same family, to draft beside lookup." },
}

local target = tw.model { path = args.model, name = "smollm2" }

local drafters = { tw.lookup {} }
if args.drafter then
  drafters[#drafters + 1] = tw.model { path = args.drafter, name = "drafter" }
end

return tw.serve {
  listen = "127.0.0.1:8088",
  models = {
    ["smollm2"] = tw.speculation { target = target, drafters = drafters },
    ["smollm2-plain"] = target,
  },
}
