-- Consensus: cheap machines draft at the same time, and where they agree the target is not asked. Approximate: each
-- response says so. Audits measure how often the target would have chosen the same token. With too little agreement
-- the rule gets stricter by itself. On each cheap machine, with a model of the target's family:
--
--   tightwad node --listen 0.0.0.0:7710 --token SECRET --model drafter=SMALL.gguf
--
-- On this machine:
--
--   tightwad run scripts/consensus.lua --set model=BIG.gguf --set token=SECRET \
--     --set drafters=tightwad://192.168.1.21:7710,tightwad://192.168.1.22:7710,tightwad://192.168.1.23:7710 \
--     [--set rule=majority] [--set policy=NAME]

local tw = require "tightwad"

local args = tw.arg {
  model = {
    type = "path",
    default = "../models/smollm2-135m-instruct.gguf",
    help = "The GGUF file of the target.",
  },
  drafters = {
    type = "list",
    required = true,
    help = "The drafters: addresses of nodes, such as tightwad://HOST:PORT, or GGUF files.",
  },
  token = { type = "string", help = "The bearer token of the nodes." },
  rule = {
    type = "string",
    default = "strict",
    one_of = { "strict", "majority", "any_disagree", "hedge" },
    help = "The rule that accepts tokens without the target.",
  },
  policy = { type = "string", help = "A consensus policy that replaces the rule: a plugin's name or a .wasm file." },
}

local target = tw.model { path = args.model, name = "target" }

local drafters = {}
for index, source in ipairs(args.drafters) do
  if source:find("://", 1, true) then
    drafters[index] = tw.node { url = source, token = args.token }
  else
    drafters[index] = tw.model { path = source }
  end
end

return tw.serve {
  listen = "127.0.0.1:8088",
  models = {
    ["consensus"] = tw.consensus {
      target = target,
      drafters = drafters,
      rule = args.rule,
      policy = args.policy,
      audit_rate = 0.05,
    },
    -- The same drafters, but exact: the target verifies all proposals in one pass.
    ["exact"] = tw.speculation { target = target, drafters = drafters },
    ["target"] = target,
  },
}
