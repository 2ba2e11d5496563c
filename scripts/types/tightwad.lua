---@meta tightwad
-- Types for the Lua language server: add this folder to its workspace.library.

---A backend: something that runs a model, or a mode over other backends.
---@class tightwad.Backend
---@field name string
local Backend = {}

---Answers the request; the client sees the answer as it is written.
---Returns nil and the reason when the backend cannot.
---@param req tightwad.Request
---@param changes? tightwad.Changes
---@return tightwad.Answer? answer
---@return string? err
function Backend:generate(req, changes) end

---Answers the request without showing the answer to the client.
---@param req tightwad.Request
---@param changes? tightwad.Changes
---@return tightwad.Answer? answer
---@return string? err
function Backend:complete(req, changes) end

---What to change of a request before a backend sees it.
---@class tightwad.Changes
---@field prompt? string
---@field messages? { role: string, content: string }[]
---@field max_tokens? integer
---@field temperature? number
---@field seed? integer
---@field stop? string[]

---@class tightwad.Answer
---@field text string
---@field finish "stop"|"length"
---@field prompt_tokens integer
---@field completion_tokens integer
---@field exact boolean

---One request. What a pipeline returns as a string is shown to the client too.
---@class tightwad.Request
---@field id string
---@field model string the name that the client asked for
---@field prompt string the raw prompt, or the text of all messages, one a line
---@field messages? { role: string, content: string }[] nil for raw prompts
---@field max_tokens? integer
---@field temperature number
---@field seed integer
---@field stop string[]
local Request = {}

---Shows text to the client. The answer is then no longer exact.
---@param text string
function Request:emit(text) end

---@class tightwad
---@field version string
---@field settings table<string, string> what --set KEY=VALUE gave
---@field log { debug: fun(text: string), info: fun(text: string), warn: fun(text: string), error: fun(text: string) }
local tw = {}

---@class tightwad.Model
---@field path? string the GGUF file; with `swarm`, that or a folder (without an extension), default: the user's models
---@field swarm? string pulled from other machines where it is not there: "NAME@DIGEST", "DIGEST" or "NAME"; only a whole digest pins the file
---@field peers? string[] with `swarm`: http://HOST:PORT of machines that may have it; default: those found on the local network
---@field token? string with `swarm`: the token that they want to see
---@field name? string default: the file's name without its ending
---@field context? integer|string tokens per sequence, such as 32768 or "32k"; default: what the model was trained for, as far as memory allows
---@field slots? integer sequences that run at once; default: 8, or fewer where that makes room for 32,768 tokens each
---@field queue? integer requests that may wait for a slot
---@field threads? integer of a forward pass; default: one a core
---@field gpu_layers? integer layers on a GPU

---A model in this process. Needs `path` or `swarm`.
---@param spec tightwad.Model
---@return tightwad.Backend
function tw.model(spec) end

---A drafter that proposes what followed the same words earlier; no model.
---@param spec { name?: string, min_match?: integer }
---@return tightwad.Backend
function tw.lookup(spec) end

---A model on another machine that runs `tightwad node`.
---@param spec { url: string, model?: string, token?: string, name?: string, fallback?: tightwad.Backend|tightwad.Backend[], patience?: number }
---@return tightwad.Backend
function tw.node(spec) end

---@class tightwad.Server
---@field url string http://HOST:PORT
---@field model? string
---@field token? string its API key
---@field name? string
---@field verify? "replay"|"logprobs" may be a target: it generates freely and what was drafted is compared, or in one pass by its `prompt_logprobs` (tw.openai only)
---@field tokenizer? string with "logprobs": a GGUF file of the same model, for its vocabulary

---A llama-server: drafts by text, answers whole requests.
---@param spec tightwad.Server
---@return tightwad.Backend
function tw.llama_server(spec) end

---An Ollama server: drafts by text, answers whole requests.
---@param spec tightwad.Server
---@return tightwad.Backend
function tw.ollama(spec) end

---Any server with OpenAI's interface: drafts by text, answers whole requests.
---@param spec tightwad.Server
---@return tightwad.Backend
function tw.openai(spec) end

---The nodes on the local network that make themselves known.
---@param spec { seconds?: number }
---@return { name: string, url: string, version: string, models: string[] }[]
function tw.discover(spec) end

---@class tightwad.Worker
---@field url string http://HOST:PORT
---@field token? string the token it was started with; default: the pool's
---@field name? string in plans, errors and `pin`; default: HOST:PORT

---@class tightwad.Pool
---@field model string the GGUF file, on this machine
---@field workers? (string|tightwad.Worker)[] machines that run `tightwad worker`, at most 16
---@field token? string the token of workers that have none of their own here
---@field here? boolean false: no layers on this machine; default: true
---@field name? string default: the file's name without its ending
---@field context? integer|string tokens per sequence, such as 32768 or "32k"; default: what the model was trained for, as far as it fits
---@field slots? integer sequences that run at once; default: 4
---@field queue? integer requests that may wait for a slot
---@field threads? integer of a forward pass on this machine
---@field plugin? string the placement plugin, by name or as a .wasm file
---@field pin? table<string, string> from patterns of tensor names to a worker's name, or "here"
---@field ttl? number seconds without use after which the model is unloaded; default: never
---@field keep? boolean true: never unloaded by itself, not to make room and not by `ttl`
---@field load? "start"|"demand" with the script, or with the first request; default: "start"
---@field patience? number seconds that a request waits for a pool that loads or recovers; default: 300

---One model's layers over many machines.
---@param spec tightwad.Pool
---@return tightwad.Backend
function tw.pooling(spec) end

---@class tightwad.Speculation
---@field target tightwad.Backend verifies
---@field draft? tightwad.Backend|tightwad.Backend[] who drafts
---@field drafters? tightwad.Backend|tightwad.Backend[] the same
---@field max_draft? integer most tokens of a draft; default: 32
---@field overlap? boolean false: no drafting while the target verifies
---@field tree? boolean false: never several drafters' continuations in one verification
---@field translate? boolean drafters with another vocabulary draft by text
---@field plugin? string the plugin that drives, by name or as a .wasm file
---@field sha256? string the digest that the plugin's file must have
---@field settings? table for the plugin

---Drafters propose, the target verifies; the output is the target's own.
---@param spec tightwad.Speculation
---@return tightwad.Backend
function tw.speculation(spec) end

---@class tightwad.Consensus
---@field target tightwad.Backend is asked where the drafters do not settle it; it must be able to go on behind tokens that it did not choose
---@field drafters? tightwad.Backend|tightwad.Backend[] draft at once, all in every round
---@field draft? tightwad.Backend|tightwad.Backend[] the same
---@field rule? "strict"|"majority"|"any_disagree"|"hedge" default: "strict"
---@field block? integer most tokens of a ballot, 1 to 64; default: 16
---@field audit? number the share of acceptances that the target looks at afterwards, 0 to 1; default: 0.05
---@field floor? number the agreement that audits must show, or the rule gets tighter until the script is loaded again, 0 to 1; default: 0.9
---@field quorum? integer answers that are waited for, and ballots that "strict" and "any_disagree" need; default: more than half of the drafters
---@field threshold? number the share of all weight that "hedge" needs, and always more than half; default: 0.75
---@field translate? boolean drafters with another vocabulary draft by text
---@field plugin? string a consensus policy in place of the rule, by name or as a .wasm file
---@field sha256? string the digest that the policy's file must have
---@field on_failure? "verify"|"decode"|"error" where the policy fails: the target verifies all ballots, generates a stretch alone, or the request fails; with `plugin` only; default: "verify"
---@field mode? string the plugin that drives, by name or as a .wasm file
---@field settings? table for that plugin

---Drafters race, and where they agree the target is not asked. Approximate: responses say so.
---@param spec tightwad.Consensus
---@return tightwad.Backend
function tw.consensus(spec) end

---@class tightwad.ReviewCache
---@field entries? integer 1 to 1000000; default: 256
---@field seconds? integer how long one is kept, 1 to 31536000; default: 600
---@field sampled? boolean true: also reviews of requests whose tokens are drawn at random; default: false

---@class tightwad.Gate
---@field fleet tightwad.Backend|tightwad.Backend[] write whole answers
---@field reviewer tightwad.Backend approves them, corrects them, or answers itself
---@field review? "score"|"judge"|"both" by the reviewer's probabilities, its own words, or both; default: "score", or "judge" where the reviewer cannot score
---@field prompt? string what it is asked for "judge"; must contain {answer}, may contain {question}
---@field drafts? integer members that write at once; default: 1
---@field tries? integer more members that write, one after the other, when all answers were rejected, 0 to 64; default: 0
---@field stream? boolean false: nothing goes to the client before the whole answer was reviewed; default: true
---@field cache? boolean|tightwad.ReviewCache of reviews; false: none; default: true
---@field approve? number the least mean log-probability of a token with which an answer is approved, -100 to 0; default: -1.0
---@field floor? number an answer is cut before the first token with a log-probability below this; default: -6.0
---@field keep? number the least share of an answer that stays in a correction, 0 to 1; default: 0.3
---@field plugin? string a gate policy in place of the built-in verdict, by name or as a .wasm file
---@field sha256? string the digest that the policy's file must have
---@field mode? string the plugin that drives, by name or as a .wasm file
---@field on_reviewer_lost? "error"|"pass_labelled" the request fails, or a candidate is passed on and labelled; default: "error"
---@field settings? table for the plugin that drives

---A fleet writes, a reviewer approves, corrects or rejects. Approximate, but for the reviewer's own answers: responses say which.
---@param spec tightwad.Gate
---@return tightwad.Backend
function tw.gate(spec) end

---What the script serves; return it.
---@param spec { listen?: string, token?: string, models: table<string, tightwad.Backend|fun(req: tightwad.Request): any, string?> }
---@return any
function tw.serve(spec) end

return tw
