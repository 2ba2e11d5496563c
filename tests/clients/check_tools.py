"""Tests tool calls with the official openai package and the real binary. Usage: check_tools.py BASE_URL MODEL."""

import json
import sys

import openai

model = sys.argv[2]
client = openai.OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0)
weather = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
question = [{"role": "user", "content": "How is the weather in Paris?"}]
for streamed in (False, True):
    response = client.chat.completions.create(
        model=model, messages=question, tools=[weather], tool_choice="required",
        max_tokens=60, temperature=0, stream=streamed,
    )
    if streamed:
        deltas = [c.choices[0].delta for c in response if c.choices]
        calls = [call for delta in deltas for call in (delta.tool_calls or [])]
    else:
        assert response.choices[0].finish_reason == "tool_calls", response
        calls = response.choices[0].message.tool_calls
    assert calls[0].function.name == "weather"
    assert "city" in json.loads(calls[0].function.arguments), calls
conversation = question + [
    {"role": "assistant", "content": None, "tool_calls": [
        {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}]},
    {"role": "tool", "tool_call_id": "call_1", "content": "sunny, 21 degrees"},
]
final = client.chat.completions.create(
    model=model, messages=conversation, tools=[weather], max_tokens=40, temperature=0
)
assert final.choices[0].message.content, final
