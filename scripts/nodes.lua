-- A target on another machine, with drafters on this machine. On the other machine:
--
--   tightwad node --listen 0.0.0.0:7710 --token SECRET --model big=PATH.gguf
--
-- On this machine:
--
--   tightwad run scripts/nodes.lua --set url=tightwad://192.168.1.20:7710 --set token=SECRET [--set drafter=PATH.gguf]

local tw = require "tightwad"

local args = tw.arg {
  url = {
    type = "string",
    help = "The address tightwad://HOST:PORT#FINGERPRINT of the node. Default: the first node that discovery finds.",
  },
  token = { type = "string", help = "The bearer token of the node." },
  model = { type = "string", help = "The model's name on the node. Default: the only model of the node." },
  drafter = { type = "path", help = "The GGUF file of a smaller model of the same family, to draft beside lookup." },
}

local url = args.url
if not url then
  local found = tw.discover { seconds = 2 }
  for _, node in ipairs(found) do
    tw.log.info(node.name .. " at " .. node.url .. " has " .. table.concat(node.models, ", "))
  end
  if not found[1] then
    error("no node announces itself on the local network; give an address with --set url=tightwad://HOST:7710", 0)
  end
  url = found[1].url
end

local target = tw.node { url = url, token = args.token, model = args.model }

local drafters = { tw.lookup {} }
if args.drafter then
  drafters[#drafters + 1] = tw.model { path = args.drafter, name = "drafter" }
end

return tw.serve {
  listen = "127.0.0.1:8088",
  models = {
    [target.name] = tw.speculation { target = target, drafters = drafters },
    [target.name .. "-plain"] = target,
  },
}
