// Tests the real binary with the official openai package. Usage: node check.mjs BASE_URL
import assert from "node:assert/strict";
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.argv[2], apiKey: "none", maxRetries: 0 });
const messages = [{ role: "user", content: "What is the capital of France?" }];
const common = { model: "fast", messages, max_tokens: 20, temperature: 0 };

const models = [];
for await (const model of client.models.list()) models.push(model.id);
assert(models.includes("fast"));

const complete = await client.chat.completions.create(common);
assert(complete.choices[0].message.content);
assert.equal(complete.tightwad.exact, true);

let text = "";
let usage;
const stream = await client.chat.completions.create({
  ...common, stream: true, stream_options: { include_usage: true },
});
for await (const chunk of stream) {
  text += chunk.choices[0]?.delta?.content ?? "";
  usage = chunk.usage ?? usage;
}
assert.equal(text, complete.choices[0].message.content);
assert.equal(usage.completion_tokens, complete.usage.completion_tokens);

const scored = await client.chat.completions.create({ ...common, logprobs: true, top_logprobs: 2 });
assert.equal(scored.choices[0].logprobs.content[0].top_logprobs.length, 2);

const schema = {
  type: "object", properties: { large: { type: "boolean" } }, required: ["large"], additionalProperties: false,
};
const constrained = await client.chat.completions.create({
  ...common, response_format: { type: "json_schema", json_schema: { name: "x", schema } },
});
assert.equal(typeof JSON.parse(constrained.choices[0].message.content).large, "boolean");

await assert.rejects(client.chat.completions.create({ ...common, model: "none" }), OpenAI.NotFoundError);
await assert.rejects(client.chat.completions.create({ ...common, top_p: 7 }), OpenAI.BadRequestError);
await assert.rejects(
  client.chat.completions.create({ ...common, max_tokens: 700 , messages: [{ role: "user", content: "Tell a long story." }] }, { timeout: 200 }),
  OpenAI.APIConnectionTimeoutError,
);

// A client may close a stream early without an error.
const abandoned = await client.chat.completions.create({ ...common, max_tokens: 500, stream: true });
for await (const _ of abandoned) break;
console.log("ok");
