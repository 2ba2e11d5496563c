-- The model writes a plan, which the client does not see, and then answers with the plan.

local tw = require "tightwad"

local args = tw.arg {
  model = { type = "path", default = "../../models/smollm2-135m-instruct.gguf", help = "The GGUF file of the model." },
}

local model = tw.model { path = args.model }

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
