-- The big model runs on another machine. When that machine is lost, the same file on this machine continues the same
-- stream after the last committed token.

local tw = require "tightwad"

local args = tw.arg {
  url = { type = "string", default = "http://127.0.0.1:7710", help = "The address http://HOST:PORT of the node." },
  token = { type = "string", help = "The bearer token of the node." },
  spare = {
    type = "path",
    default = "../../models/smollm2-135m-instruct.gguf",
    help = "The GGUF file on this machine that takes over. It must be the node's model.",
  },
}

local spare = tw.model { path = args.spare, name = "spare" }
local big = tw.node { url = args.url, token = args.token, fallback = spare }

return tw.serve {
  models = { ["big"] = tw.speculation { target = big, drafters = tw.lookup {} } },
}
