-- The quality gate: cheap machines write whole answers, a strong model approves them unchanged, goes on where they
-- go wrong, or answers itself. `tightwad gate start --fleet URL --reviewer FILE` runs this file too.
--
--   tightwad run scripts/gate.lua --set reviewer=BIG.gguf --set token=SECRET \
--     --set fleet=http://192.168.1.21:7710,http://192.168.1.22:7710 [--set review=score|judge|both] [--set plugin=NAME]
--
-- When an answer is good enough depends on the models: `tightwad bench gate --fleet SMALL.gguf --reviewer BIG.gguf`
-- suggests `approve` and `floor` for tw.gate, which a copy of this file can set.

local tw = require "tightwad"

local function backend(place, name)
  if place:find("://", 1, true) then
    return tw.node { url = place, token = tw.settings.token, name = name }
  end
  return tw.model { path = place, name = name }
end

local fleet = {}
for place in string.gmatch(tw.settings.fleet or "", "[^,]+") do
  fleet[#fleet + 1] = backend(place, "writer " .. #fleet + 1)
end
if #fleet == 0 or not tw.settings.reviewer then
  error("name who writes and who reviews: --set fleet=http://HOST:7710,... --set reviewer=BIG.gguf")
end

local reviewer = backend(tw.settings.reviewer, "reviewer")

return tw.serve {
  listen = "127.0.0.1:8088",
  models = {
    ["gate"] = tw.gate {
      fleet = fleet,
      reviewer = reviewer,
      review = tw.settings.review or "score",
      plugin = tw.settings.plugin,
    },
    ["reviewer"] = reviewer,
  },
}
