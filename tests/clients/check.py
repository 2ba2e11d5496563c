"""Tests the real binary with the official openai package. Usage: check.py BASE_URL."""

import json
import sys

import openai

client = openai.OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0)
messages = [{"role": "user", "content": "What is the capital of France?"}]

assert "fast" in [model.id for model in client.models.list()]

complete = client.chat.completions.create(model="fast", messages=messages, max_tokens=20, temperature=0)
text = complete.choices[0].message.content
assert text, complete
assert complete.usage.completion_tokens > 0
assert complete.tightwad["exact"] is True

stream = client.chat.completions.create(
    model="fast", messages=messages, max_tokens=20, temperature=0, stream=True,
    stream_options={"include_usage": True},
)
chunks = list(stream)
assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == text
assert chunks[-1].usage.completion_tokens == complete.usage.completion_tokens

scored = client.chat.completions.create(
    model="fast", messages=messages, max_tokens=8, temperature=0, logprobs=True, top_logprobs=2
)
content = scored.choices[0].logprobs.content
assert len(content[0].top_logprobs) == 2 and content[0].top_logprobs[0].token == content[0].token

schema = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}, "large": {"type": "boolean"}},
    "required": ["city", "large"],
    "additionalProperties": False,
}
constrained = client.chat.completions.create(
    model="fast", messages=messages, max_tokens=60,
    response_format={"type": "json_schema", "json_schema": {"name": "city", "schema": schema, "strict": True}},
)
value = json.loads(constrained.choices[0].message.content)
assert isinstance(value["large"], bool), value

plain = client.completions.create(model="plain", prompt="The capital of France is", max_tokens=4, temperature=0)
assert "Paris" in plain.choices[0].text, plain

for call, error in [
    (dict(model="none", messages=messages), openai.NotFoundError),
    (dict(model="fast", messages=messages, temperature=-1), openai.BadRequestError),
    (dict(model="fast", messages=[]), openai.BadRequestError),
]:
    try:
        client.chat.completions.create(**call)
    except error as raised:
        assert raised.body["message"], raised
    else:
        raise AssertionError(call)

try:
    client.with_options(timeout=0.2).chat.completions.create(
        model="fast", messages=[{"role": "user", "content": "Tell a long story."}], max_tokens=700
    )
except openai.APITimeoutError:
    pass
else:
    raise AssertionError("no time-out")
