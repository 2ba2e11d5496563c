-- The gate: cheap machines write complete answers. A strong model approves an answer unchanged, corrects it from the
-- first bad token, or answers itself. `tightwad gate start --fleet URL --reviewer FILE` runs this file too.
--
--   tightwad run scripts/gate.lua --set reviewer=BIG.gguf --set token=SECRET \
--     --set fleet=tightwad://192.168.1.21:7710,tightwad://192.168.1.22:7710 [--set review=score|judge|both] [--set policy=NAME]
--
-- Good thresholds depend on the models: `tightwad bench gate --fleet SMALL.gguf --reviewer BIG.gguf` suggests
-- `min_mean_logprob` and `min_token_logprob` for tw.gate. A copy of this file can set them.

local tw = require "tightwad"

local args = tw.arg {
  fleet = {
    type = "list",
    required = true,
    help = "The backends that write answers: addresses of nodes, such as tightwad://HOST:PORT, or GGUF files.",
  },
  reviewer = {
    type = "string",
    required = true,
    help = "The backend that reviews answers: the address of a node, such as tightwad://HOST:PORT, or a GGUF file.",
  },
  token = { type = "string", help = "The bearer token of the nodes." },
  review = {
    type = "string",
    default = "score",
    one_of = { "score", "judge", "both" },
    help = "The review method: log-probabilities, a judgement in words, or both.",
  },
  policy = {
    type = "string",
    help = "A gate policy that replaces the built-in verdict: a plugin's name or a .wasm file.",
  },
}

local function backend(source, name)
  if source:find("://", 1, true) then
    return tw.node { url = source, token = args.token, name = name }
  end
  return tw.model { path = source, name = name }
end

local fleet = {}
for index, source in ipairs(args.fleet) do
  fleet[index] = backend(source, "writer " .. index)
end

local reviewer = backend(args.reviewer, "reviewer")

return tw.serve {
  listen = "127.0.0.1:8088",
  models = {
    ["gate"] = tw.gate {
      fleet = fleet,
      reviewer = reviewer,
      review = args.review,
      policy = args.policy,
    },
    ["reviewer"] = reviewer,
  },
}
