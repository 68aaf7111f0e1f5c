"""`./mesh chat`: an answer, streamed from the running mesh."""

from __future__ import annotations

import argparse
import http.client
import json
import re
import sys
from typing import Any, NoReturn
from urllib.parse import urlsplit

from mesh.errors import MeshError, OutputClosed
from mesh.instance import DEFAULT_NAME, Instance


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Declares chat."""
    parser = commands.add_parser(
        "chat", help="talk to a running mesh",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Streams one answer, or without a prompt holds a conversation: Ctrl-C ends an\n"
                    "answer, Ctrl-D the conversation.",
        epilog='examples:\n  ./mesh chat "Explain MoE architecture"\n'
               '  ./mesh chat --temperature 0 --max-tokens 32 "Hello"\n'
               '  ./mesh chat --system "Be brief."')
    parser.add_argument("prompt", nargs="*", help="what to ask")
    parser.add_argument("--system", help="system message")
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--temperature", type=float)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--url", help="another gateway: http://HOST:PORT or https://HOST:PORT")
    parser.add_argument("--model", help="model id; else what the gateway serves")
    parser.add_argument("--name", default=DEFAULT_NAME, help="name of the instance")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """One question, or many."""
    url, model = args.url, args.model
    if url is None:
        state = Instance(args.name).state()
        if state is None:
            raise MeshError(f"{args.name} is not running; start it with: ./mesh up"
                            f"{Instance(args.name).option}")
        if state["phase"] != "ready":
            raise MeshError(f"{args.name} is still starting; look: ./mesh status"
                            f"{Instance(args.name).option}")
        url, model = state["url"], model or state["model"]
    model = model or first_model(url)
    messages = [{"role": "system", "content": args.system}] if args.system else []
    if args.prompt:
        question = " ".join(args.prompt)
        if not question.strip():
            raise MeshError("there is nothing to ask; leave the prompt out for a conversation", 2)
        messages.append({"role": "user", "content": question})
        stream_answer(url, model, messages, args)
        return 0
    converse(url, model, messages, args)
    return 0


def converse(url: str, model: str, messages: list[dict[str, str]],
             args: argparse.Namespace) -> None:
    """Questions from the terminal; a turn that fails is told and left out."""
    while True:
        try:
            question = input("> " if sys.stdin.isatty() else "")
        except (EOFError, KeyboardInterrupt):
            if sys.stdin.isatty():
                print()
            return
        if not question.strip():
            continue
        turn = [*messages, {"role": "user", "content": question}]
        try:
            answer = stream_answer(url, model, turn, args)
        except MeshError as error:
            print(f"mesh: {error}", file=sys.stderr)
        except KeyboardInterrupt:
            print()
        else:
            messages[:] = [*turn, {"role": "assistant", "content": answer}]


def connect(url: str) -> http.client.HTTPConnection:
    """A connection to the gateway; over TLS, with its certificate checked, for https."""
    wrong = MeshError(f"--url {url}: write http://HOST:PORT or https://HOST:PORT", 2)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise wrong from None
    if (not host or re.search(r"[^!-~]", url) or parts.scheme not in ("http", "https")
            or parts.path.rstrip("/") not in ("", "/v1") or parts.query or parts.fragment
            or parts.username is not None):
        raise wrong
    kind = (http.client.HTTPSConnection if parts.scheme == "https" else
            http.client.HTTPConnection)
    return kind(host, port, timeout=600)


def first_model(url: str) -> str:
    """The model id that the gateway lists first."""
    connection = connect(url)
    try:
        connection.request("GET", "/v1/models")
        return json.loads(connection.getresponse().read())["data"][0]["id"]
    except (OSError, ValueError, LookupError, TypeError, http.client.HTTPException) as error:
        raise MeshError(f"{url} does not answer like a gateway: {error}") from error


def stream_answer(url: str, model: str, messages: list[dict[str, str]],
                  args: argparse.Namespace) -> str:
    """Prints tokens as they come; usage goes to stderr."""
    body: dict[str, Any] = {"model": model, "messages": messages, "stream": True,
                            "max_tokens": args.max_tokens,
                            "stream_options": {"include_usage": True}}
    for key in ("temperature", "seed"):
        if getattr(args, key) is not None:
            body[key] = getattr(args, key)
    connection = connect(url)
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body),
                           {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status != 200:
            raise_error(response.read())
        return print_events(response)
    except (OSError, http.client.HTTPException) as error:
        raise MeshError(f"no answer from {url}: {error}; is it running? ./mesh status") from error
    finally:
        connection.close()


def print_events(response: http.client.HTTPResponse) -> str:
    """The text of a stream of server-sent events, printed as it comes."""
    said: list[str] = []
    for raw in response:
        line = raw.decode().rstrip("\r\n")
        if line == "data: [DONE]":
            return "".join(said)
        if not line.startswith("data: "):
            continue
        event = json.loads(line[len("data: "):])
        if "error" in event:
            show("\n")
            raise_error(line[len("data: "):].encode())
        for choice in event["choices"]:
            text = choice["delta"].get("content") or ""
            said.append(text)
            show(text)
        if event.get("usage"):
            usage = event["usage"]
            show("\n")
            print(f"[{usage['prompt_tokens']} prompt + {usage['completion_tokens']} answer "
                  "tokens]", file=sys.stderr)
    show("\n")
    raise MeshError("the stream ended before the answer did; look: ./mesh status")


def show(text: str) -> None:
    """To the terminal, at once."""
    try:
        print(text, end="", flush=True)
    except BrokenPipeError as error:
        raise OutputClosed from error


def raise_error(body: bytes) -> NoReturn:
    """The gateway's error body as one line."""
    try:
        error = json.loads(body)["error"]
        raise MeshError(f"{error['message']} ({error.get('code') or error.get('type')})")
    except (ValueError, LookupError, TypeError) as bad:
        raise MeshError(f"unreadable answer: {body[:200]!r}") from bad
