-- Consensus: cheap machines draft at once, and where they agree the big model is not asked. Approximate: every
-- response says so, audits measure how often the big model would have said the same, and where that is too
-- rarely the rule gets tighter by itself. On each cheap machine, with models of the target's family:
--
--   tightwad node --listen 0.0.0.0:7710 --token SECRET --model draft=SMALL.gguf
--
-- Here:
--
--   tightwad run scripts/consensus.lua --set model=BIG.gguf --set token=SECRET \
--     --set drafters=http://192.168.1.21:7710,http://192.168.1.22:7710,http://192.168.1.23:7710 \
--     [--set rule=majority] [--set plugin=NAME]

local tw = require "tightwad"

local target = tw.model {
  path = tw.settings.model or "../models/smollm2-135m-instruct.gguf",
  name = "target",
}

local drafters = {}
for drafter in string.gmatch(tw.settings.drafters or "", "[^,]+") do
  local made
  if drafter:find("://", 1, true) then
    made = tw.node { url = drafter, token = tw.settings.token }
  else
    made = tw.model { path = drafter }
  end
  drafters[#drafters + 1] = made
end
if #drafters == 0 then
  error("name the drafters: --set drafters=http://HOST:7710,... or --set drafters=SMALL.gguf,...")
end

return tw.serve {
  listen = "127.0.0.1:8088",
  models = {
    ["consensus"] = tw.consensus {
      target = target,
      drafters = drafters,
      rule = tw.settings.rule or "strict",
      plugin = tw.settings.plugin,
      audit = 0.05,
    },
    -- The same drafters, exactly: what they say is verified, all of it in one pass.
    ["exact"] = tw.speculation { target = target, drafters = drafters },
    ["target"] = target,
  },
}
