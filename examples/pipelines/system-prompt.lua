-- Adds a system prompt to each conversation that has none.

local tw = require "tightwad"

local args = tw.arg {
  model = { type = "path", default = "../../models/smollm2-135m-instruct.gguf", help = "The GGUF file of the model." },
  prompt = { type = "string", default = "You are friendly and brief.", help = "The system prompt." },
}

local model = tw.model { path = args.model }

return tw.serve {
  models = {
    ["polite"] = function(req)
      local messages = req.messages
      if not messages or messages[1].role == "system" then return model:generate(req) end
      table.insert(messages, 1, { role = "system", content = args.prompt })
      return model:generate(req, { messages = messages })
    end,
  },
}
