"""PyPI clients (`openai` here, others in clients.py) against a mesh of their own: what users paste
must work unchanged.

Run by `./mesh test conformance`, with the client in build/venv-conformance. Starts the instance
`conformance` on a free port, takes it down, and ends with `N passed, N failed`.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
import traceback
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import clients
import openai
import pydantic

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "cli"))

from mesh import model as presets  # noqa: E402  pylint: disable=wrong-import-position

INSTANCE = "conformance"
QUESTION: Any = [{"role": "user", "content": "Explain MoE architecture"}]
CONTEXT = 512  # of tiny
TRANSCRIPTS = Path(__file__).parent / "transcripts"


class Mesh:
    """The running instance and a client that does not hide errors behind retries."""

    def __init__(self) -> None:
        state = json.loads((ROOT / "build" / "run" / INSTANCE / "state.json").read_text())
        self.url: str = state["url"]
        self.model: str = state["model"]
        self.processes: list[dict[str, Any]] = state["processes"]
        self.client = openai.OpenAI(base_url=f"{self.url}/v1", api_key="any", max_retries=0,
                                    timeout=60)

    def chat(self, **changes: Any) -> Any:
        """A greedy answer of at most 24 tokens, unless changed."""
        call: dict[str, Any] = {"model": self.model, "messages": QUESTION, "max_tokens": 24,
                                "temperature": 0, "seed": 7}
        return self.client.chat.completions.create(**(call | changes))

    def admin(self, name: str, path: str) -> tuple[int, str]:
        """Status and body of a page of a process's admin port."""
        address = next(one["admin_address"] for one in self.processes if one["name"] == name)
        try:
            with urllib.request.urlopen(f"http://{address}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def metric(self, name: str, series: str) -> float:
        """The value of a series without labels."""
        lines = self.admin(name, "/metrics")[1].splitlines()
        return next(float(line.split()[1]) for line in lines if line.split()[0] == series)

    def lanes_running(self) -> int:
        """Lanes on the attention worker, running or waiting."""
        lanes = json.loads(self.admin("attention-0", "/statusz")[1])["lanes"]
        return lanes["running"] + lanes["waiting"]


def refused(kind: type[openai.APIStatusError], call: Callable[[], Any]) -> dict[str, Any]:
    """The error object of a call that must raise `kind`."""
    try:
        call()
    except kind as error:
        assert isinstance(error.body, dict), f"no OpenAI error body: {error.body!r}"
        assert {"message", "type", "param", "code"} <= set(error.body), error.body
        return error.body
    raise AssertionError(f"the call was answered, {kind.__name__} was due")


def chat_whole(mesh: Mesh) -> None:
    """A whole answer has every field that clients read."""
    answer = mesh.chat()
    choice = answer.choices[0]
    assert answer.object == "chat.completion" and answer.model == mesh.model, answer
    assert answer.id and answer.created > 1_700_000_000, answer
    assert choice.index == 0 and choice.message.role == "assistant", choice
    assert isinstance(choice.message.content, str), choice
    assert choice.finish_reason in ("stop", "length"), choice
    usage = answer.usage
    assert usage.prompt_tokens > 0 and 0 < usage.completion_tokens <= 24, usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, usage


def chat_streamed(mesh: Mesh) -> None:
    """The stream says the same, in chunks of one id."""
    whole = mesh.chat()
    chunks = list(mesh.chat(stream=True))
    assert len({chunk.id for chunk in chunks}) == 1, "one id for all chunks"
    assert all(chunk.object == "chat.completion.chunk" for chunk in chunks)
    assert chunks[0].choices[0].delta.role == "assistant", chunks[0]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == whole.choices[0].message.content, (text, whole.choices[0].message.content)
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason, chunks[-1]
    assert all(chunk.choices[0].finish_reason is None for chunk in chunks[:-1])
    assert all(chunk.usage is None for chunk in chunks)


def chat_stream_usage(mesh: Mesh) -> None:
    """stream_options.include_usage adds one last chunk without choices."""
    whole = mesh.chat()
    chunks = list(mesh.chat(stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == [] and chunks[-1].usage is not None, chunks[-1]
    assert chunks[-1].usage.total_tokens == whole.usage.total_tokens, chunks[-1].usage
    assert all(chunk.usage is None for chunk in chunks[:-1])


def chat_async(mesh: Mesh) -> None:
    """The asynchronous client streams as well."""

    async def collect() -> str:
        async with openai.AsyncOpenAI(base_url=f"{mesh.url}/v1", api_key="any") as client:
            stream = await client.chat.completions.create(
                model=mesh.model, messages=QUESTION, max_tokens=24, temperature=0, stream=True)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    assert asyncio.run(collect()) == mesh.chat().choices[0].message.content


def chat_messages(mesh: Mesh) -> None:
    """System messages, earlier turns and content parts are taken."""
    answer = mesh.chat(messages=[
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": [{"type": "text", "text": "Explain"}]}])
    assert answer.usage.prompt_tokens > mesh.chat(
        messages=[{"role": "user", "content": "Explain"}]).usage.prompt_tokens


def chat_limits(mesh: Mesh) -> None:
    """max_tokens and max_completion_tokens end an answer with `length`."""
    for changes in ({"max_tokens": 1}, {"max_tokens": openai.omit, "max_completion_tokens": 1}):
        answer = mesh.chat(**changes)
        assert answer.usage.completion_tokens == 1, answer.usage
        assert answer.choices[0].finish_reason in ("length", "stop"), answer


def chat_seeds(mesh: Mesh) -> None:
    """A seed repeats a sampled answer, alone and among others; another seed gives another one."""
    def sampled(seed: int) -> str:
        return mesh.chat(temperature=1.0, top_p=0.95, seed=seed).choices[0].message.content

    alone = [sampled(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(sampled, range(4)))
    assert alone == together, (alone, together)
    assert len(set(alone)) > 1, alone


def chat_parsed(mesh: Mesh) -> None:
    """A class of pydantic as the form of the answer; a call that is forced has its arguments."""
    class Colour(pydantic.BaseModel):
        """What the answer is."""
        name: str = pydantic.Field(max_length=12)
        shade: Literal["light", "dark"]
        share: float = pydantic.Field(ge=0, le=1)

    answer = mesh.client.chat.completions.parse(model=mesh.model, messages=QUESTION, max_tokens=120,
                                                response_format=Colour)
    parsed = answer.choices[0].message.parsed
    assert isinstance(parsed, Colour) and 0 <= parsed.share <= 1, answer

    class Paint(pydantic.BaseModel):
        """Paints."""
        shade: Literal["light", "dark"]

    tool = openai.pydantic_function_tool(Paint, name="paint")
    choice = mesh.chat(tools=[tool], max_tokens=60, tool_choice={
        "type": "function", "function": {"name": "paint"}}).choices[0]
    call = choice.message.tool_calls[0].function
    assert call.name == "paint" and Paint.model_validate_json(call.arguments), choice


def chat_stop(mesh: Mesh) -> None:
    """A stop string ends the answer and is not part of it, whole and streamed."""
    text = mesh.chat().choices[0].message.content
    stop = text[len(text) // 2:][:3]
    for answer in (mesh.chat(stop=stop).choices[0].message.content,
                   "".join(chunk.choices[0].delta.content or ""
                           for chunk in mesh.chat(stop=[stop], stream=True))):
        assert answer == text[:text.index(stop)], (text, stop, answer)


def models(mesh: Mesh) -> None:
    """The list names the model; a retrieved one is the same; an unknown one is 404."""
    listed = [model.id for model in mesh.client.models.list()]
    assert listed == [mesh.model], listed
    assert mesh.client.models.retrieve(mesh.model).id == mesh.model
    refused(openai.NotFoundError, lambda: mesh.client.models.retrieve("no-such-model"))


def completions(mesh: Mesh) -> None:
    """The legacy endpoint, whole and streamed."""
    call: dict[str, Any] = {"model": mesh.model, "prompt": "Once upon a time", "max_tokens": 12,
                            "temperature": 0}
    whole = mesh.client.completions.create(**call)
    assert whole.object == "text_completion" and isinstance(whole.choices[0].text, str), whole
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    streamed = "".join(chunk.choices[0].text
                       for chunk in mesh.client.completions.create(**call, stream=True))
    assert streamed == whole.choices[0].text, (streamed, whole.choices[0].text)


def unknown_model(mesh: Mesh) -> None:
    """404 with a code, whole and streamed."""
    for stream in (False, True):
        body = refused(openai.NotFoundError, lambda: mesh.chat(model="gpt-4o", stream=stream))
        assert body["code"] == "model_not_found", body


def out_of_range(mesh: Mesh) -> None:
    """400 naming the field."""
    wrong: dict[str, Any] = {"temperature": 9, "top_p": 0, "max_tokens": 0, "stop": [""],
                             "messages": []}
    for field, value in wrong.items():
        body = refused(openai.BadRequestError, lambda: mesh.chat(**{field: value}))
        assert (body["param"] or "").startswith(field), (field, body)


def wrong_types(mesh: Mesh) -> None:
    """400 naming the field, for values that the client's types would not let through."""
    for field, value in (("temperature", "hot"), ("stream", "yes"), ("messages", "hi"),
                         ("seed", 1.5), ("max_tokens", "8")):
        body = refused(openai.BadRequestError, lambda: mesh.chat(extra_body={field: value}))
        assert (body["param"] or "").startswith(field), (field, body)


def unsupported(mesh: Mesh) -> None:
    """What this version does not do is refused by name, never ignored."""
    unique = {"type": "json_schema",
              "json_schema": {"name": "n", "schema": {"type": "array", "uniqueItems": True}}}
    wrong: dict[str, Any] = {"n": 9, "top_logprobs": 3, "tool_choice": "required",
                             "response_format": unique}
    for field, value in wrong.items():
        body = refused(openai.BadRequestError, lambda: mesh.chat(**{field: value}))
        assert (body["param"] or "").startswith(field), (field, body)


def unknown_field(mesh: Mesh) -> None:
    """A misspelt field is refused by name; one of the written list changes nothing."""
    body = refused(openai.BadRequestError, lambda: mesh.chat(extra_body={"temprature": 1}))
    assert body["param"] == "temprature", body
    plain = mesh.chat().choices[0].message.content
    ignored = mesh.chat(user="u", extra_body={"metadata": {"a": "b"}})
    assert ignored.choices[0].message.content == plain


def too_long(mesh: Mesh) -> None:
    """400 context_length_exceeded."""
    long = [{"role": "user", "content": "expert " * (2 * CONTEXT)}]
    body = refused(openai.BadRequestError, lambda: mesh.chat(messages=long))
    assert body["code"] == "context_length_exceeded", body


def unknown_path(mesh: Mesh) -> None:
    """An endpoint that does not exist is 404 with an OpenAI body."""
    embed = mesh.client.embeddings.create
    refused(openai.NotFoundError, lambda: embed(model=mesh.model, input="x"))


def transcripts(mesh: Mesh) -> None:
    """The bytes of streams and answers, but for ids and times, are those of transcripts/."""
    for case in sorted(TRANSCRIPTS.glob("*.json")):
        call = json.loads(case.read_text())
        request = urllib.request.Request(mesh.url + call["path"],
                                         json.dumps({"model": mesh.model} | call["body"]).encode(),
                                         {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = f"{answer.status} {answer.headers['Content-Type']}\n\n{answer.read().decode()}"
        for pattern, name in (
                (r"\b(chatcmpl-|cmpl-|resp_|msg_|rs_|fc_|call_)[0-9a-f]{16}", r"\g<1>ID"),
                (r'"fp_[0-9a-f]+"', '"fp_ID"'), (r'"created(_at)?":\d+', r'"created\g<1>":0')):
            text = re.sub(pattern, name, text)
        golden = case.with_suffix(".txt")
        if os.environ.get("EXPERTMESH_UPDATE_TRANSCRIPTS"):  # after a change that is meant
            golden.write_text(text)
        assert golden.read_text() == text, f"{case.stem}: {text}"


def example_clients(mesh: Mesh) -> None:
    """The examples in C++ and Python say the same, and name the reason of an error."""
    address = next(one["grpc_address"] for one in mesh.processes if one["role"] == "gateway")
    programs = ([str(ROOT / "build" / "release" / "bin" / "expertmesh-example-generate")],
                [sys.executable, str(ROOT / "cli" / "examples" / "generate.py")])
    said = set()
    for program in programs:
        done = subprocess.run([*program, address, mesh.model, "Once upon a time"],
                              capture_output=True, text=True, check=True)
        assert "tokens" in done.stderr and done.stdout, done
        said.add(done.stdout)
        wrong = subprocess.run([*program, address, "no-such-model", "x"], capture_output=True,
                               text=True, check=False)
        assert wrong.returncode == 1 and "MODEL_NOT_FOUND" in wrong.stderr, wrong
    assert len(said) == 1, said


def hang_up(mesh: Mesh) -> None:
    """A client that leaves in the middle of a long answer is counted and frees its lane."""
    def long_enough(seed: int) -> bool:
        return mesh.chat(temperature=1, seed=seed, max_tokens=400).usage.completion_tokens > 150

    seed = next(seed for seed in range(100) if long_enough(seed))
    before = mesh.metric("gateway", "expertmesh_gateway_client_disconnects_total")
    stream = mesh.chat(temperature=1, seed=seed, max_tokens=400, stream=True)
    next(iter(stream))
    stream.close()
    deadline = time.monotonic() + 10
    while mesh.lanes_running() > 0 or before == mesh.metric(
            "gateway", "expertmesh_gateway_client_disconnects_total"):
        assert time.monotonic() < deadline, "the lane still runs 10 s after the hang-up"


def lost_experts(mesh: Mesh) -> None:
    """Without an expert pool: 503 with the reason, the gateway stays ready. Kills: runs last."""
    victim = next(one for one in mesh.processes if one["role"] == "expert-worker")
    os.kill(victim["pid"], signal.SIGKILL)
    body = refused(openai.InternalServerError, mesh.chat)
    assert body["code"] in ("experts_unavailable", "peer_lost"), body
    try:
        mesh.chat()
    except openai.APIStatusError as error:
        assert error.status_code == 503, error
    assert mesh.admin("gateway", "/readyz")[0] == 200
    try:
        text = "".join(chunk.choices[0].delta.content or "" for chunk in mesh.chat(stream=True))
        raise AssertionError(f"a stream without experts ended well: {text!r}")
    except openai.APIError as error:
        assert error.code in ("experts_unavailable", "peer_lost"), error


CHECKS: list[Callable[[Mesh], None]] = [
    chat_whole, chat_streamed, chat_stream_usage, chat_async, chat_messages, chat_limits,
    chat_seeds, chat_parsed, chat_stop, models, completions, unknown_model, out_of_range,
    wrong_types, unsupported, unknown_field, too_long, unknown_path, transcripts,
    example_clients, hang_up, *clients.CASES,
    lost_experts,  # last: the mesh is less then
]


def run(mesh: Mesh) -> int:
    """Runs every check; the number that failed."""
    print(f"openai {openai.__version__} against {mesh.url}", flush=True)
    failed = 0
    for check in CHECKS:
        try:
            check(mesh)
            print(f"ok {check.__name__}", flush=True)
        except Exception:  # a check fails however it likes
            failed += 1
            print(f"FAILED {check.__name__}\n{traceback.format_exc(limit=-2)}", flush=True)
    print(f"{len(CHECKS) - failed} passed, {failed} failed", flush=True)
    return failed


def main() -> int:
    """Up, checks, down."""
    mesh_command = [str(ROOT / "mesh")]
    subprocess.run([*mesh_command, "up", "--name", INSTANCE, "--port", "0", "--detach",
                    "--no-build", "--no-restart", "--model", str(presets.preset("tiny"))],
                   check=True, stdout=subprocess.DEVNULL)
    try:
        return 1 if run(Mesh()) else 0
    finally:
        subprocess.run([*mesh_command, "down", "--name", INSTANCE], check=True)


if __name__ == "__main__":
    sys.exit(main())
