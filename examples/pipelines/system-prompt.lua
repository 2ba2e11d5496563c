-- Puts a system prompt before every conversation that has none.

local tw = require "tightwad"

local model = tw.model { path = "../../models/smollm2-135m-instruct.gguf" }

return tw.serve {
  models = {
    ["polite"] = function(req)
      local messages = req.messages
      if not messages or messages[1].role == "system" then return model:generate(req) end
      table.insert(messages, 1, { role = "system", content = "You are friendly and brief." })
      return model:generate(req, { messages = messages })
    end,
  },
}
