-- Lets the model write a plan that the client does not see, and answer with it.

local tw = require "tightwad"

local model = tw.model { path = "../../models/smollm2-135m-instruct.gguf" }

return tw.serve {
  models = {
    ["planner"] = function(req)
      local question = { role = "user", content = req.prompt }
      local plan, err = model:complete(req, {
        max_tokens = 80,
        messages = { { role = "system", content = "Write a plan of three steps. No answer." }, question },
      })
      if not plan then return nil, err end
      return model:generate(req, {
        messages = { { role = "system", content = "Follow this plan:\n" .. plan.text }, question },
      })
    end,
  },
}
