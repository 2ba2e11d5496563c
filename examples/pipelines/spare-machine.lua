-- The big model is on another machine; when that is lost, the same file here goes on in the same stream, from
-- the last token that was committed.

local tw = require "tightwad"

local spare = tw.model { path = "../../models/smollm2-135m-instruct.gguf", name = "spare" }
local big = tw.node {
  url = tw.settings.url or "http://127.0.0.1:7710",
  token = tw.settings.token,
  fallback = spare,
}

return tw.serve {
  models = { ["big"] = tw.speculation { target = big, draft = tw.lookup {} } },
}
