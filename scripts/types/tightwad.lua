---@meta tightwad
-- Types of the module `tightwad` for the Lua language server (LuaCATS). `.luarc.json` adds this folder to its library.
-- A test compares the keys here with the keys that the host accepts.

---A backend runs a model, or a mode over other backends.
---@class (exact) tightwad.Backend
---@field name string The backend's name in reports, logs and metrics.
local Backend = {}

---Answers a request and streams the answer to the client. Returns nil and the reason when the backend fails.
---Raises an error when the backend only drafts, or when `changes` has a wrong key or value.
---@param req tightwad.Request The request of the pipeline.
---@param changes? tightwad.Changes Fields of the request to replace before the backend receives it.
---@return tightwad.Answer? answer The complete answer.
---@return string? err The reason of a failure.
function Backend:generate(req, changes) end

---Answers a request without sending the answer to the client. Returns nil and the reason when the backend fails.
---Raises an error when the backend only drafts, or when `changes` has a wrong key or value.
---@param req tightwad.Request The request of the pipeline.
---@param changes? tightwad.Changes Fields of the request to replace before the backend receives it.
---@return tightwad.Answer? answer The complete answer.
---@return string? err The reason of a failure.
function Backend:complete(req, changes) end

---One message of a chat.
---@class tightwad.Message
---@field role string The author: "system", "user", "assistant" or "tool".
---@field content? string The text.

---Fields of a request that `Backend:generate` and `Backend:complete` replace. Bytes that are not UTF-8 become U+FFFD.
---@class (exact) tightwad.Changes
---@field prompt? string A raw prompt in place of the messages. The chat template is not applied to it.
---@field messages? tightwad.Message[] The messages of the chat, in place of the prompt. At least one, each with a role.
---@field max_tokens? integer The maximum number of generated tokens, at least 1.
---@field temperature? number The sampling temperature. 0 always takes the most probable token.
---@field seed? integer The seed of the sampler. An equal seed gives equal tokens.
---@field stop? string[] Texts that end the answer, up to 16. Empty texts are ignored.

---The answer of a backend.
---@class (exact) tightwad.Answer
---@field text string The generated text.
---@field finish_reason "stop"|"length" "stop": the model or a stop text ended the answer. "length": the token limit ended it.
---@field prompt_tokens integer The number of tokens in the prompt.
---@field completion_tokens integer The number of generated tokens.
---@field exact boolean True if each token is the target's own choice.

---One request that a client sent to a pipeline. It is valid until the function returns. Its fields cannot be set.
---@class (exact) tightwad.Request
---@field id string The request's identifier in the log.
---@field model string The model name that the client asked for.
---@field prompt string The raw prompt. For a chat: the texts of all messages, one per line.
---@field messages? tightwad.Message[] A copy of the messages of a chat. Nil for a raw prompt.
---@field max_tokens? integer The maximum number of generated tokens. Nil: no limit but the context length.
---@field temperature number The sampling temperature.
---@field seed integer The seed of the sampler.
---@field stop string[] The texts that end the answer.
local Request = {}

---Sends text to the client. The answer is no longer exact. Raises an error when the client has disconnected.
---@param text string The text to send.
function Request:emit(text) end

---Writes lines to the host's log. The host cuts a line after 4096 bytes and escapes control characters.
---@class (exact) tightwad.Log
---@field debug fun(text: string) Writes a line at the level DEBUG.
---@field info fun(text: string) Writes a line at the level INFO.
---@field warn fun(text: string) Writes a line at the level WARN.
---@field error fun(text: string) Writes a line at the level ERROR.

---The module `tightwad`.
---@class tightwad
---@field version string The host's version, such as "0.1.0".
---@field log tightwad.Log Writes lines to the host's log.
local tw = {}

---The declaration of one script argument.
---@class (exact) tightwad.Argument
---@field type "string"|"path"|"list"|"boolean"|"integer"|"number" The type of the value. A path starts at the script's folder unless it is absolute or starts with `~/`. A list is comma-separated on the command line and a list of strings in Lua. A boolean is `true` or `false`.
---@field default? string|boolean|number|string[] The value without `--set`. Default: nil, or an empty list for the type "list".
---@field required? boolean True: the script does not run without this argument. It excludes `default`. Default: false.
---@field one_of? (string|number)[] The permitted values; for a list, the permitted elements. Not for the type "boolean". Default: each value of the type.
---@field help? string A sentence for `tightwad run SCRIPT --args` and for the error about a missing argument.

---Declares the script's arguments and returns their values by name. `--set KEY=VALUE` on the command line gives a value.
---A script calls tw.arg at most once, and before the other functions of `tw`. A script without tw.arg accepts no `--set`.
---`tightwad run SCRIPT --args` lists the arguments and loads no model.
---@param arguments table<string, tightwad.Argument> The declarations by name. A name has letters, digits and `_`.
---@return table<string, any> values The value of each argument. Nil: neither `--set` nor `default` gives one.
function tw.arg(arguments) end

---Options of tw.model.
---@class (exact) tightwad.ModelOptions
---@field path? string The GGUF file. With `swarm`: the file, or a folder (a path without an extension), that receives the download. Default with `swarm`: the user's models folder. Required without `swarm`.
---@field swarm? string The model to download from other machines if this machine lacks it: "NAME@DIGEST", "DIGEST" or "NAME". Only a complete digest pins the file. Default: no download.
---@field peers? string[] Addresses of machines that may have the model, as their seeders print them: tightwad://HOST:PORT#FINGERPRINT. Needs `swarm`. Default: the machines that discovery finds on the local network.
---@field token? string The token of the seeders. Encrypted ones get a proof of it; only plain ones in `peers` receive it. Needs `swarm`. Default: no token.
---@field insecure? boolean Allows plain `peers` on other machines: the token and the model cross the network in clear. Default: false.
---@field name? string The name in reports and metrics. Default: the file name without its extension.
---@field context? integer|string The context length in tokens per sequence, such as 32768 or "32k". Default: the model's training length, or less if memory is short.
---@field slots? integer The number of sequences that run at the same time. Default: 8, or fewer so that each has room for 32,768 tokens.
---@field max_queue? integer The number of requests that may wait for a slot. Default: 64.
---@field threads? integer The number of threads of a forward pass. Default: one per core.
---@field gpu_layers? integer The number of layers on a GPU. Default: all, if the host has GPU support.
---@field template? string The file of a chat template (Jinja). Default: the chat template of the GGUF file.

---Makes a backend of a model in this process. Needs `path` or `swarm`.
---@param options tightwad.ModelOptions
---@return tightwad.Backend backend The model.
function tw.model(options) end

---Options of tw.lookup.
---@class (exact) tightwad.LookupOptions
---@field name? string The name in reports and metrics. Default: "lookup".
---@field min_match_tokens? integer The number of tokens that must match before a proposal, 1 to 32. Default: 2.
---@field memory_tokens? integer The number of tokens of earlier requests that it remembers, about 20 bytes each. 0: none. Default: 262144.
---@field shared_memory? boolean True: requests with different API keys draft from each other's texts. False: a key's texts serve only its own requests. Default: false.

---Makes a drafter without a model. It proposes the tokens that followed the same tokens earlier: in the context, or in earlier requests.
---@param options tightwad.LookupOptions
---@return tightwad.Backend backend A drafter. It cannot answer requests.
function tw.lookup(options) end

---Options of tw.heads.
---@class (exact) tightwad.HeadsOptions
---@field target tightwad.Backend The model whose heads draft: a tw.model, a tw.node or a tw.pooling.

---Makes a drafter of the model's own draft heads (MTP layers), which some files hold. It drafts only for this model.
---@param options tightwad.HeadsOptions
---@return tightwad.Backend backend A drafter. It cannot answer requests.
function tw.heads(options) end

---Options of tw.node.
---@class (exact) tightwad.NodeOptions
---@field url string The node's address, as the node prints it: tightwad://HOST:PORT#FINGERPRINT. Or http://HOST:PORT for a node on this machine.
---@field model? string The model's name on the node. Default: the only model of the node.
---@field token? string The token that the node was started with. Both machines prove that they know it. Default: no token, for paired machines.
---@field insecure? boolean Allows http:// to another machine: the token and all texts cross the network in clear. Default: false.
---@field name? string The name in reports and metrics. Default: the model's name on the node.
---@field fallback? tightwad.Backend|tightwad.Backend[] Standby backends for the time when the node is lost, in order. Each needs the same vocabulary. Default: none.
---@field wait_timeout? number The time in seconds that a request waits for a lost node, 0 to 3600. Default: 30, or 2 with `fallback`.

---Makes a backend of a model on another machine that runs `tightwad node`.
---@param options tightwad.NodeOptions
---@return tightwad.Backend backend The model on the node.
function tw.node(options) end

---Options of tw.llama_server.
---@class (exact) tightwad.LlamaServerOptions
---@field url string The server's address http://HOST:PORT, with or without /v1.
---@field model? string The model's name on the server. Default: the only model of the server.
---@field api_key? string The API key, sent as a bearer token. Default: no key.
---@field name? string The name in reports and metrics. Default: the model's name.
---@field verify? "replay" "replay" makes the server a target: it generates freely, and the host compares the drafts with its text. This is never faster than the server alone. Default: the server is not a target.
---@field first_token_timeout? number Seconds until the first token of an answer, 1 to 86400. Default: 600.

---Makes a backend of a llama-server. It answers complete requests and drafts as text.
---@param options tightwad.LlamaServerOptions
---@return tightwad.Backend backend The model of the server.
function tw.llama_server(options) end

---Options of tw.ollama.
---@class (exact) tightwad.OllamaOptions
---@field url string The server's address http://HOST:PORT, with or without /v1.
---@field model? string The model's name on the server. Default: the only model of the server.
---@field api_key? string The API key, sent as a bearer token. Default: no key.
---@field name? string The name in reports and metrics. Default: the model's name.
---@field verify? "replay" "replay" makes the server a target: it generates freely, and the host compares the drafts with its text. This is never faster than the server alone. Default: the server is not a target.
---@field first_token_timeout? number Seconds until the first token of an answer, 1 to 86400. Default: 600.

---Makes a backend of an Ollama server. It answers complete requests and drafts as text.
---@param options tightwad.OllamaOptions
---@return tightwad.Backend backend The model of the server.
function tw.ollama(options) end

---Options of tw.openai.
---@class (exact) tightwad.OpenAiOptions
---@field url string The server's address http://HOST:PORT or https://HOST, with or without /v1.
---@field model? string The model's name on the server. Default: the only model of the server.
---@field api_key? string The API key, sent as a bearer token. Default: no key.
---@field name? string The name in reports and metrics. Default: the model's name.
---@field verify? "replay"|"logprobs" Makes the server a target. "replay": it generates freely, and the host compares the drafts with its text; never faster than the server alone. "logprobs": one pass over the draft with the server's `prompt_logprobs`. Default: the server is not a target.
---@field first_token_timeout? number Seconds until the first token of an answer, 1 to 86400. Default: 600.
---@field tokenizer? string A GGUF file of the same model, for its vocabulary. Required with verify = "logprobs", refused otherwise.

---Makes a backend of any server with OpenAI's interface. It answers complete requests and drafts as text.
---@param options tightwad.OpenAiOptions
---@return tightwad.Backend backend The model of the server.
function tw.openai(options) end

---Options of tw.discover.
---@class (exact) tightwad.DiscoverOptions
---@field seconds? number The time in seconds to wait for announcements, 0.1 to 60. Default: 1.

---A node that discovery found.
---@class (exact) tightwad.DiscoveredNode
---@field name string The machine's name.
---@field url string The address for tw.node: tightwad://HOST:PORT, or http://HOST:PORT of a node without encryption.
---@field version string The node's version.
---@field models string[] The names of the node's models.

---Finds the nodes that announce themselves on the local network (multicast DNS).
---@param options tightwad.DiscoverOptions
---@return tightwad.DiscoveredNode[] nodes The nodes, none if no node announces itself in time.
function tw.discover(options) end

---A machine that runs `tightwad worker`.
---@class (exact) tightwad.Worker
---@field url string The worker's address, as the worker prints it: tightwad://HOST:PORT#FINGERPRINT. Or http://HOST:PORT for a worker on this machine.
---@field token? string The token that the worker was started with. Default: the pool's `token`.
---@field insecure? boolean Allows http:// to another machine. Default: the pool's `insecure`.
---@field name? string The name in plans, errors and `override_tensors`. Default: HOST:PORT.

---Options of tw.pooling.
---@class (exact) tightwad.PoolingOptions
---@field model string The GGUF file on this machine. The workers do not need the file.
---@field workers? (string|tightwad.Worker)[] The machines that run `tightwad worker`: addresses or tables, at most 16. Default: none.
---@field token? string The token of the workers that have no `token` of their own. Default: no token, for paired machines.
---@field insecure? boolean Allows http:// to other machines: weights and the states of the model cross the network in clear. Default: false.
---@field include_host? boolean True: this machine may hold layers too. False: it may still hold the output head. Default: true.
---@field name? string The name in reports, `tightwad status` and `tightwad model`. Default: the file name without its extension.
---@field context? integer|string The context length in tokens per sequence, such as 32768 or "32k". Default: the model's training length, or the largest half of it (at least 4,096) that fits.
---@field slots? integer The number of sequences that run at the same time, at least 1. Each takes memory for its KV cache. Default: 4.
---@field max_queue? integer The number of requests that may wait for a slot. Default: 64.
---@field threads? integer The maximum number of threads of a forward pass on this machine. Default: one per core.
---@field policy? string The placement policy: a plugin's name or a .wasm file. Default: the built-in policy.
---@field policy_sha256? string The SHA-256 that the policy's file must have, as 64 hexadecimal digits. Needs `policy`. Default: any file.
---@field override_tensors? table<string, string> Places tensors apart from their layer: from a regular expression over tensor names to a worker's name, or to "host" for this machine. Default: none.
---@field idle_timeout? number The time in seconds without requests after which the model is unloaded, 0 to 604800. Default: never.
---@field keep_loaded? boolean True: the host never unloads the model by itself, neither to make room nor after `idle_timeout`. Default: false.
---@field load? "startup"|"on_demand" "startup": the model is loaded with the script, and the script fails if the pool does not start. "on_demand": the first request loads it. Default: "startup".
---@field wait_timeout? number The time in seconds that a request waits for a pool that loads or recovers, 0 to 604800. Default: 300.

---Makes a backend of one model whose layers lie on several machines.
---@param options tightwad.PoolingOptions
---@return tightwad.Backend backend The pool.
function tw.pooling(options) end

---Options of tw.speculation.
---@class (exact) tightwad.SpeculationOptions
---@field target tightwad.Backend The backend that verifies the drafts.
---@field drafters? tightwad.Backend|tightwad.Backend[] The backends that propose tokens. Default: the target's draft heads, if its file has some, and tw.lookup {}.
---@field max_draft_tokens? integer The maximum number of tokens in a draft, 1 to 64. Default: 32.
---@field overlap? boolean True: drafters may propose while the target verifies. Default: true.
---@field tree? boolean True: one verification may hold the continuations of several drafters as a tree. Default: true.
---@field translate? boolean True: drafters with another vocabulary draft as text. False: such drafters are refused. Default: false.
---@field driver? string The plugin that drives the mode: a name or a .wasm file. Default: the built-in driver.
---@field driver_sha256? string The SHA-256 that the driver's file must have, as 64 hexadecimal digits. Needs `driver`. Default: any file.
---@field settings? table Named settings for the driver. Default: none.

---Makes a backend that drafts and verifies. The answer is the target's own, token for token.
---@param options tightwad.SpeculationOptions
---@return tightwad.Backend backend Speculation over the target.
function tw.speculation(options) end

---Options of tw.consensus.
---@class (exact) tightwad.ConsensusOptions
---@field target tightwad.Backend The backend that decides where the drafters do not agree. It must be able to continue after tokens that it did not choose.
---@field drafters tightwad.Backend|tightwad.Backend[] The backends that propose tokens, all of them at the same time in each round.
---@field rule? "strict"|"majority"|"any_disagree"|"hedge" The rule that accepts tokens without the target. "strict": all ballots agree on the token. "majority": more than half of all drafters agree on it. "any_disagree": the ballots agree completely, or nothing is accepted. "hedge": drafters with `min_weight` of all weight agree. Default: "strict".
---@field max_draft_tokens? integer The maximum number of tokens in a ballot, 1 to 64. Default: 16.
---@field audit_rate? number The share of accepted spans that the target checks after the answer, 0 to 1. Default: 0.05.
---@field min_agreement? number The minimum agreement in the audits, 0 to 1. Below it the rule gets stricter until the script is loaded again. Default: 0.9.
---@field quorum? integer The number of ballots that a race waits for, and that "strict" and "any_disagree" need; 1 to the number of drafters. Default: more than half of the drafters.
---@field min_weight? number The minimum share of all weight for "hedge", 0 to 1. The host always requires more than half. Default: 0.75.
---@field translate? boolean True: drafters with another vocabulary draft as text. False: such drafters are refused. Default: false.
---@field policy? string The consensus policy that replaces the rule: a plugin's name or a .wasm file. Default: none.
---@field policy_sha256? string The SHA-256 that the policy's file must have, as 64 hexadecimal digits. Needs `policy`. Default: any file.
---@field on_policy_failure? "verify"|"decode"|"error" The reaction to a failed policy. "verify": the target verifies all ballots. "decode": the target generates the next 16 tokens alone. "error": the request fails. Needs `policy`. Default: "verify".
---@field driver? string The plugin that drives the mode: a name or a .wasm file. Default: the built-in driver.
---@field driver_sha256? string The SHA-256 that the driver's file must have, as 64 hexadecimal digits. Needs `driver`. Default: any file.
---@field settings? table Named settings for the driver. Default: none.

---Makes a backend whose drafters race. Where they agree, the target is not asked. Approximate: each response says so.
---@param options tightwad.ConsensusOptions
---@return tightwad.Backend backend Consensus over the target.
function tw.consensus(options) end

---The cache of reviews of a gate.
---@class (exact) tightwad.ReviewCache
---@field max_entries? integer The maximum number of reviews, 1 to 1000000. Default: 256.
---@field max_age? integer The time in seconds that the cache keeps a review, 1 to 31536000. Default: 600.
---@field sampled? boolean True: the cache also keeps reviews of requests with a temperature above 0. Default: false.

---Options of tw.gate.
---@class (exact) tightwad.GateOptions
---@field fleet tightwad.Backend|tightwad.Backend[] The backends that write complete answers (candidates).
---@field reviewer tightwad.Backend The backend that approves a candidate, corrects it, or answers itself.
---@field review? "score"|"judge"|"both" The review method. "score": the reviewer's log-probabilities of the candidate. "judge": the reviewer's judgement in words. "both": both must agree. Default: "score", or "judge" if the reviewer cannot score.
---@field judge_prompt? string The prompt for "judge". It must contain {answer} and may contain {question}. Default: a built-in prompt.
---@field parallel? integer The number of candidates that are written at the same time, 1 to the number of members. Default: 1.
---@field max_retries? integer The number of further members that write after a rejection, one after another, 0 to 64. Default: 0.
---@field stream? boolean True: an approved beginning goes to the client before the review ends. False: nothing goes out before the review of the complete candidate. Default: true.
---@field cache? boolean|tightwad.ReviewCache The cache of reviews. False: no cache. True or a table: a cache. Default: true.
---@field min_mean_logprob? number The minimum mean log-probability per token of an approved candidate, -100 to 0. Default: -1.0.
---@field min_token_logprob? number The minimum log-probability of a token, -100 to 0. A candidate is cut before the first token below it. Default: -6.0.
---@field min_kept_share? number The minimum share of a candidate that a correction keeps, 0 to 1. With less, the candidate is rejected. Default: 0.3.
---@field policy? string The gate policy that replaces the built-in verdict: a plugin's name or a .wasm file. Default: none.
---@field policy_sha256? string The SHA-256 that the policy's file must have, as 64 hexadecimal digits. Needs `policy`. Default: any file.
---@field on_reviewer_lost? "error"|"pass_unreviewed" The reaction to a lost reviewer. "error": the request fails. "pass_unreviewed": a candidate goes to the client, and the response says that it is unreviewed. Default: "error".
---@field driver? string The plugin that drives the mode: a name or a .wasm file. Default: the built-in driver.
---@field driver_sha256? string The SHA-256 that the driver's file must have, as 64 hexadecimal digits. Needs `driver`. Default: any file.
---@field settings? table Named settings for the driver. Default: none.

---Makes a backend whose fleet writes answers and whose reviewer approves, corrects or rejects them. Approximate, except
---for the reviewer's own answers: each response says which verdict it got.
---@param options tightwad.GateOptions
---@return tightwad.Backend backend The gate.
function tw.gate(options) end

---The key of a client. `tightwad key new NAME` prints a key and its line for the script.
---@class (exact) tightwad.Key
---@field hash string The hash of the key: "sha256:" and 64 hexadecimal digits. The key itself stays with the client.
---@field rights? ("chat"|"manage"|"observe")[] The rights. "chat": generate text and list models. "manage": load and unload pools. "observe": status and metrics, which show the requests of all clients. Default: { "chat" }.
---@field models? string[] The names in `models` of tw.serve that the key may use. Other models do not exist for it. Default: all models.
---@field requests_per_minute? integer The maximum number of requests that generate, 1 to 100000. Default: no limit.
---@field tokens_per_day? integer The maximum number of prompt and completion tokens per day, UTC. The request that reaches it finishes. Default: no limit.
---@field expires? string The last day of the key, UTC, such as "2027-01-31". Default: the key does not expire.

---The certificate of an endpoint with https://, in PEM files. The host uses renewed files without a restart.
---@class (exact) tightwad.Tls
---@field cert string The file of the certificate, with the certificates between it and the authority.
---@field key string The file of its private key.

---Options of tw.serve.
---@class (exact) tightwad.ServeOptions
---@field models table<string, tightwad.Backend|fun(req: tightwad.Request): any, string?> The served models by the names that clients use. A model is a backend, or a function (a pipeline) that answers a request: it streams with `Backend:generate` or `Request:emit`, and a returned string is sent too. A returned nil with a reason fails the request.
---@field listen? string The address HOST:PORT to listen on. `--listen` takes precedence. Default: "127.0.0.1:8088".
---@field token? string The bearer token that clients must send. `--token` takes precedence. Default: no token. Addresses beyond loopback need a token or keys.
---@field keys? table<string, tightwad.Key> The keys of clients, by name. A client sends its key as a bearer token. Default: no keys.
---@field tls? tightwad.Tls The certificate. Clients of other machines must then use https://. Default: none, plain http://.
---@field hosts? string[] Further host names, such as "box.lan", by which clients reach a host without a token. Default: loopback addresses and "localhost".
---@field origins? string[] Origins of web pages, such as "http://localhost:5173", that may use the host from a browser (CORS). Default: none.

---The value that a script returns to the host.
---@class (exact) tightwad.Script
local Script = {}

---Declares the models that the script serves. The script ends with `return tw.serve { ... }`.
---@param options tightwad.ServeOptions
---@return tightwad.Script script The script's return value.
function tw.serve(options) end

return tw
