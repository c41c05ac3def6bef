"""The vendors' Python clients, in their strict modes, as judges of `pipeline mock-server`.

usage: referee.py http://127.0.0.1:PORT     (run by `cargo xtask referee`)
One line for each check; exit 1 when one failed. What the server answers is told by POST /__script.
"""

import json
import sys
import urllib.request

import anthropic
import openai
from google import genai
from google.genai import errors, types

BASE = sys.argv[1]
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
failed = []
claude = anthropic.Anthropic(api_key="k", base_url=BASE, max_retries=0, _strict_response_validation=True)
chat = openai.OpenAI(api_key="k", base_url=BASE + "/v1", max_retries=0, _strict_response_validation=True)
gemini = genai.Client(api_key="k", http_options=types.HttpOptions(base_url=BASE))
ASK = {"model": "claude-haiku-4-5", "max_tokens": 100, "messages": [{"role": "user", "content": "hi"}]}
CHAT = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": "hi"}]}


def script(*steps):
    request = urllib.request.Request(BASE + "/__script", data=json.dumps(steps).encode())
    urllib.request.urlopen(request).read()


def check(name):
    def run(judge):
        try:
            judge()
            print("ok  ", name)
        except Exception as error:  # every failure is one line
            failed.append(name)
            print("FAIL", name, type(error).__name__, str(error)[:300])
    return run


@check("anthropic: stream with thinking and a call; usage; request id")
def _():
    tool = {"name": "get_n", "description": "d", "input_schema": SCHEMA}
    script({"thinking": "hm", "text": "calling", "tools": [{"name": "get_n", "input": {"n": 42}}]})
    with claude.messages.stream(**ASK, tools=[tool], thinking={"type": "adaptive"}) as stream:
        message = stream.get_final_message()
    assert [b.type for b in message.content] == ["thinking", "text", "tool_use"] and message.content[2].input == {"n": 42}
    assert message.stop_reason == "tool_use" and message.usage.output_tokens > 0


@check("anthropic: errors by status")
def _():
    for status, kind in ((400, "BadRequestError"), (401, "AuthenticationError"), (429, "RateLimitError"), (529, "OverloadedError")):
        script({"status": status})
        try:
            claude.messages.create(**ASK)
            raise AssertionError("no error")
        except anthropic.APIStatusError as error:
            assert type(error).__name__ == kind and error.request_id, (status, type(error).__name__)


@check("openai: stream with usage, and calls put together")
def _():
    tool = {"type": "function", "function": {"name": "get_n", "description": "d", "parameters": SCHEMA}}
    script({"text": "hello there, world"}, {"tools": [{"name": "get_n", "input": {"n": 5}}]})
    chunks = list(chat.chat.completions.create(**CHAT, stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "hello there, world"
    assert chunks[-1].usage.total_tokens > 0
    with chat.chat.completions.stream(**CHAT, tools=[tool]) as stream:
        for _event in stream:
            pass
        calls = stream.get_final_completion().choices[0].message.tool_calls
    assert json.loads(calls[0].function.arguments) == {"n": 5}


@check("openai: the built-in answer fits the schema that was asked for")
def _():
    script()
    form = {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": SCHEMA}}
    answer = chat.chat.completions.create(**CHAT, response_format=form).choices[0].message.content
    assert isinstance(json.loads(answer)["n"], int)


@check("gemini: stream, call and usage")
def _():
    script({"text": "hello there, world", "usage": {"cachedContentTokenCount": 9}}, {"tools": [{"name": "get_n", "input": {"n": 1}}]})
    chunks = list(gemini.models.generate_content_stream(model="gemini-2.5-flash", contents="hi"))
    assert "".join(c.text or "" for c in chunks) == "hello there, world"
    assert chunks[-1].usage_metadata.cached_content_token_count == 9
    answer = gemini.models.generate_content(model="gemini-2.5-flash", contents="hi")
    assert answer.function_calls[0].args == {"n": 1}


@check("gemini: errors by status")
def _():
    for status in (400, 401, 429, 503):
        script({"status": status, "repeat": -1})
        try:
            gemini.models.generate_content(model="gemini-2.5-flash", contents="hi")
            raise AssertionError("no error")
        except errors.APIError as error:
            assert error.code == status


print(f"{len(failed)} failed" if failed else "all passed")
sys.exit(1 if failed else 0)
