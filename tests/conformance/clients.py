"""Other clients against the running mesh: `anthropic`, the Responses API of `openai`,
`langchain-openai` and `langchain-deepseek`. Cases are called by run.py."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import anthropic
import openai
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_deepseek import ChatDeepSeek
from langchain_openai import ChatOpenAI

QUESTION = "Explain MoE architecture"
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def _anthropic(mesh: Any) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=f"{mesh.url}/anthropic", api_key="any", max_retries=0)


def _ask(mesh: Any, **changes: Any) -> dict[str, Any]:
    return {"model": mesh.model, "max_tokens": 16, "extra_body": {"temperature": 0},
            "messages": [{"role": "user", "content": QUESTION}]} | changes


def messages_whole(mesh: Any) -> None:
    answer = _anthropic(mesh).messages.create(**_ask(mesh))
    assert answer.type == "message" and answer.role == "assistant", answer
    assert answer.content[0].type == "text", answer.content
    assert answer.stop_reason in ("max_tokens", "end_turn"), answer.stop_reason
    used = answer.usage
    assert used.input_tokens + (used.cache_read_input_tokens or 0) > 5, used
    assert 0 < used.output_tokens <= 16, used


def messages_stream(mesh: Any) -> None:
    whole = _anthropic(mesh).messages.create(**_ask(mesh))
    kinds = []
    with _anthropic(mesh).messages.stream(**_ask(mesh)) as stream:
        for event in stream:
            kinds.append(event.type)
        final = stream.get_final_message()
    assert final.content[0].text == whole.content[0].text, (final, whole)
    assert final.stop_reason == whole.stop_reason
    assert final.usage.output_tokens == whole.usage.output_tokens
    assert kinds[0] == "message_start" and kinds[-1] == "message_stop", kinds
    assert kinds.count("content_block_start") == kinds.count("content_block_stop") == 1, kinds


def messages_conversation(mesh: Any) -> None:
    history = [
        {"role": "user", "content": [{"type": "text", "text": "Weather in Bern?"}]},
        {"role": "assistant", "content": [
            {"type": "text", "text": "Let me look."},
            {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Bern"}}]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "t1", "content": "sunny"},
            {"type": "text", "text": "And now?"}]}]
    tools = [{"name": "weather", "description": "d", "input_schema": WEATHER}]
    client = _anthropic(mesh)
    answer = client.messages.create(**_ask(mesh, messages=history, tools=tools, system="Be brief"))
    assert answer.usage.output_tokens > 0
    counted = client.messages.count_tokens(model=mesh.model, messages=history, tools=tools,
                                           system="Be brief")
    used = answer.usage.input_tokens + (answer.usage.cache_read_input_tokens or 0)
    assert counted.input_tokens == used, (counted, answer.usage)


def messages_stop_and_prefill(mesh: Any) -> None:
    client = _anthropic(mesh)
    text = client.messages.create(**_ask(mesh, max_tokens=24)).content[0].text
    stop = text[3:6]
    answer = client.messages.create(**_ask(mesh, max_tokens=24, stop_sequences=[stop]))
    assert answer.stop_reason == "stop_sequence" and answer.stop_sequence == stop, answer
    assert stop not in answer.content[0].text
    turns = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": "Well"}]
    assert client.messages.create(**_ask(mesh, messages=turns)).usage.output_tokens > 0


def messages_refusals(mesh: Any) -> None:
    client = _anthropic(mesh)
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": ""}}
    for changes, kind, word in (
            ({"model": "nope"}, anthropic.NotFoundError, "nope"),
            ({"messages": [{"role": "user", "content": [image]}]}, anthropic.BadRequestError,
             "messages[0].content[0]"),
            ({"messages": []}, anthropic.BadRequestError, "messages"),
            ({"extra_body": {"temperature": 9}}, anthropic.BadRequestError, "temperature"),
            ({"extra_body": {"frobnicate": 1}}, anthropic.BadRequestError, "frobnicate"),
            ({"tool_choice": {"type": "any"}}, anthropic.BadRequestError, "tool_choice")):
        try:
            client.messages.create(**_ask(mesh, **changes))
        except kind as error:
            assert isinstance(error.body, dict) and error.body["type"] == "error", error.body
            assert word in error.body["error"]["message"], error.body
        else:
            raise AssertionError(f"{changes} was answered")


def responses_whole_and_stream(mesh: Any) -> None:
    call: dict[str, Any] = {"model": mesh.model, "input": QUESTION, "instructions": "Be brief",
                            "max_output_tokens": 16, "temperature": 0}
    whole = mesh.client.responses.create(**call)
    assert whole.object == "response" and whole.output[0].type == "message", whole
    assert whole.status in ("completed", "incomplete"), whole.status
    assert whole.usage.output_tokens <= 16
    text, numbers, last = "", [], None
    for event in mesh.client.responses.create(stream=True, **call):
        numbers.append(event.sequence_number)
        last = event
        if event.type == "response.output_text.delta":
            text += event.delta
    assert numbers == list(range(len(numbers))), numbers
    assert last is not None and last.type == f"response.{whole.status}", last
    assert text == whole.output_text == last.response.output_text, (text, whole.output_text)
    with mesh.client.responses.stream(**call) as stream:
        assert "".join(event.delta for event in stream
                       if event.type == "response.output_text.delta") == text


def responses_items(mesh: Any) -> None:
    items = [{"role": "user", "content": [{"type": "input_text", "text": "Weather in Bern?"}]},
             {"type": "function_call", "call_id": "c1", "name": "weather",
              "arguments": "{\"city\": \"Bern\"}"},
             {"type": "function_call_output", "call_id": "c1", "output": "sunny"},
             {"role": "user", "content": "And now?"}]
    tools = [{"type": "function", "name": "weather", "parameters": WEATHER, "strict": False}]
    answer = mesh.client.responses.create(model=mesh.model, input=items, tools=tools,
                                          max_output_tokens=8)
    assert answer.usage.input_tokens > 10, answer.usage


def responses_refusals(mesh: Any) -> None:
    for changes, param in (({"previous_response_id": "resp_1"}, "previous_response_id"),
                           ({"store": True}, "store"), ({"input": []}, "input"),
                           ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
                            "input[0].content[0]"),
                           ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
                           ({"text": {"format": {"type": "grammar"}}}, "text.format.type")):
        call = {"model": mesh.model, "input": "x"} | changes
        try:
            mesh.client.responses.create(**call)
        except openai.BadRequestError as error:
            assert error.body["param"] == param, error.body
        else:
            raise AssertionError(f"{changes} was answered")


def embeddings_are_a_clear_404(mesh: Any) -> None:
    try:
        mesh.client.embeddings.create(model=mesh.model, input="x")
    except openai.NotFoundError as error:
        assert "embeddings" in error.body["message"], error.body
    else:
        raise AssertionError("embeddings were answered")


@tool
def weather(city: str) -> str:
    """Weather of a city."""
    return city


def _langchain(model: Any) -> None:
    answer = model.invoke([SystemMessage("Be brief"), HumanMessage(QUESTION)])
    assert isinstance(answer, AIMessage)
    assert answer.usage_metadata["output_tokens"] > 0, answer
    streamed = None
    for chunk in model.stream(QUESTION, stream_usage=True):
        streamed = chunk if streamed is None else streamed + chunk
    assert streamed.content == model.invoke(QUESTION).content, streamed
    assert streamed.usage_metadata["output_tokens"] > 0, streamed
    history = [HumanMessage("Weather in Bern?"),
               AIMessage("", tool_calls=[{"name": "weather", "args": {"city": "Bern"}, "id": "1"}]),
               ToolMessage("sunny", tool_call_id="1")]
    assert isinstance(model.bind_tools([weather]).invoke(history), AIMessage)


def langchain_openai(mesh: Any) -> None:
    _langchain(ChatOpenAI(model=mesh.model, base_url=f"{mesh.url}/v1", api_key="any",
                          temperature=0, max_tokens=12, max_retries=0))


def langchain_deepseek(mesh: Any) -> None:
    _langchain(ChatDeepSeek(model=mesh.model, api_base=f"{mesh.url}/v1", api_key="any",
                            temperature=0, max_tokens=12, max_retries=0))


def chat_choices_and_logprobs(mesh: Any) -> None:
    answer = mesh.chat(n=3, temperature=1, logprobs=True, top_logprobs=2, max_tokens=8)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in answer.choices}) == 3, answer
    for choice in answer.choices:
        for token in choice.logprobs.content:
            assert len(token.top_logprobs) == 2 and token.logprob <= 0
            assert bytes(token.bytes).decode(errors="replace") == token.token, token
    texts: dict[int, str] = {}
    for chunk in mesh.chat(n=3, temperature=1, max_tokens=8, stream=True):
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
    assert texts == {choice.index: choice.message.content for choice in answer.choices}, texts


def chat_tools(mesh: Any) -> None:
    tools = [{"type": "function", "function": {"name": "weather", "parameters": WEATHER}}]
    call = {"id": "c1", "type": "function",
            "function": {"name": "weather", "arguments": json.dumps({"city": "Bern"})}}
    history = [{"role": "user", "content": "Weather in Bern?"},
               {"role": "assistant", "content": None, "tool_calls": [call]},
               {"role": "tool", "tool_call_id": "c1", "content": "sunny"}]
    assert mesh.chat(messages=history, tools=tools, tool_choice="auto").usage.prompt_tokens > 20


CASES: tuple[Callable[[Any], None], ...] = (
    chat_choices_and_logprobs, chat_tools, responses_whole_and_stream, responses_items,
    responses_refusals, embeddings_are_a_clear_404, messages_whole, messages_stream,
    messages_conversation, messages_stop_and_prefill, messages_refusals, langchain_openai,
    langchain_deepseek)
