"""Random JSON schemas and seeds against a mesh with random weights: every answer must parse and
satisfy its schema, by the judgement of PyPI `jsonschema`, which knows nothing of ours.

Run by `./mesh test conformance --only schemas [--count N] [--seed S]`. Starts the instance
`schemas` on a free port, takes it down, and ends with `N passed, N failed`.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jsonschema

ROOT = Path(__file__).resolve().parents[2]
INSTANCE = "schemas"
FORMATS = ["date", "time", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"]
PATTERNS = ["^[a-z]+$", "^[A-Z]{2}-[0-9]{3}$", "^(yes|no|maybe)?$", "^\\d{4}(-\\d{2}){0,2}$", "a.c",
            "^\\w+@\\w+$", "^[^\"\\\\]{2,5}$", "x$", "^(?:foo|bar)+$", "^[\\u00e0-\\u00ff]{1,4}$",
            "^\\S{3}$", "^[\"\\\\\\t]{1,3}$"]
# A limit below the bytes of the shortest instance may cut the answer (docs/structured-output.md);
# the longest one is enough for every schema drawn here.
LIMITS = [300, 400, 480]
NAMES = ["a", "b", "name", "value", "list", "naïve", "with space", "q\"uote", "back\\slash",
         "ключ", "", "x" * 20]


class Maker:
    """Draws schemas of the supported subset; some bounds are tight, none is empty."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def schema(self, depth: int = 0) -> Any:
        """Any schema; deeper ones are simpler."""
        kinds = [self.string, self.number, self.integer, self.choice, self.plain]
        if depth < 3:
            kinds += [self.object, self.object, self.array, self.array, self.either, self.together]
        made = self.random.choice(kinds)(depth)
        if isinstance(made, dict) and self.chance(0.2):
            made["description"] = "said of it"
        return made

    def plain(self, _: int) -> Any:
        return self.random.choice([
            {"type": "boolean"}, {"type": "null"}, {"type": "integer"}, {"type": "number"},
            {"type": ["string", "null"], "maxLength": 8}, {"const": [1, {"a": None}]},
            {"const": "é\"\\"}])

    def string(self, _: int) -> dict[str, Any]:
        draw = self.random.random()
        if draw < 0.25:
            return {"type": "string", "pattern": self.random.choice(PATTERNS)}
        if draw < 0.45:
            return {"type": "string", "format": self.random.choice(FORMATS)}
        least = self.random.randint(0, 6)
        made: dict[str, Any] = {"type": "string"}
        if self.chance(0.5):
            made["minLength"] = least
        if self.chance(0.7):
            made["maxLength"] = least + self.random.randint(0, 9)
        return made

    def integer(self, _: int) -> dict[str, Any]:
        low = self.random.randint(-10**self.random.randint(0, 6), 10**self.random.randint(0, 6))
        made: dict[str, Any] = {"type": "integer"}
        if self.chance(0.6):
            made[self.random.choice(["minimum", "exclusiveMinimum"])] = low
        step = self.random.randint(1, 50)
        if self.chance(0.3):
            made["multipleOf"] = step
        if self.chance(0.6):
            made[self.random.choice(["maximum", "exclusiveMaximum"])] = (
                low + 2 * step + self.random.randint(2, 1000))
        return made

    def number(self, _: int) -> dict[str, Any]:
        low = round(self.random.uniform(-100, 100), self.random.randint(0, 4))
        made: dict[str, Any] = {"type": "number"}
        if self.chance(0.7):
            made[self.random.choice(["minimum", "exclusiveMinimum"])] = low
        if self.chance(0.7):
            made[self.random.choice(["maximum", "exclusiveMaximum"])] = (
                low + self.random.choice([0.001, 0.5, 3, 1e5]))
        return made

    def choice(self, _: int) -> dict[str, Any]:
        values: list[Any] = ["red", "green", "", "blau\n", 0, -1.5, 1e21, True, None, [],
                             {"k": "v"}, "red and green"]
        return {"enum": self.random.sample(values, self.random.randint(1, 6))}

    def array(self, depth: int) -> dict[str, Any]:
        made: dict[str, Any] = {"type": "array"}
        if self.chance(0.2):
            made["prefixItems"] = [self.schema(depth + 1)
                                   for _ in range(self.random.randint(1, 3))]
            made["items"] = self.random.choice([False, {"type": "null"}])
            if made["items"] is False:
                made["maxItems"] = len(made["prefixItems"])
        else:
            made["items"] = self.schema(depth + 1)
            least = self.random.randint(0, 3)
            if self.chance(0.5):
                made["minItems"] = least
            if self.chance(0.8):
                made["maxItems"] = least + self.random.randint(0, 3)
        return made

    def object(self, depth: int) -> dict[str, Any]:
        names = self.random.sample(NAMES, self.random.randint(0, 5))
        made: dict[str, Any] = {"type": "object",
                                "properties": {name: self.schema(depth + 1) for name in names}}
        if self.chance(0.8):
            made["required"] = [name for name in names if self.chance(0.6)]
        if self.chance(0.6):
            made["additionalProperties"] = self.random.choice(
                [False, True, {"type": "integer", "minimum": 0, "maximum": 99}])
        return made

    def either(self, depth: int) -> dict[str, Any]:
        if self.chance(0.3):
            kinds = self.random.sample(["dog", "cat", "fish"], 2)
            return {"oneOf": [{"type": "object", "required": ["kind"],
                               "properties": {"kind": {"const": kind},
                                              "data": self.schema(depth + 1)}}
                              for kind in kinds]}
        return {"anyOf": [self.schema(depth + 1) for _ in range(self.random.randint(1, 3))]}

    def together(self, depth: int) -> dict[str, Any]:
        return {"allOf": [{"type": "object", "properties": {"one": self.schema(depth + 1)},
                           "required": ["one"]},
                          {"type": "object", "properties": {"two": self.schema(depth + 1)}}]}

    def whole(self) -> Any:
        """A schema with definitions that it may refer to, itself included."""
        made = self.schema()
        if not isinstance(made, dict) or not self.chance(0.25):
            return made
        return {"$defs": {"node": {"type": "object", "required": ["value"], "properties": {
                    "value": made,
                    "next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/node"}]}}}},
                "$ref": "#/$defs/node"}


class Answers:
    """Asks the mesh and judges."""

    def __init__(self, url: str, model: str) -> None:
        self.url = url
        self.model = model

    def judge(self, seed: int) -> tuple[str, int, bool]:
        """"" if all is well, else what is not; tokens of the answer; whether it was cut at the
        limit drawn and judged at the longest."""
        maker = Maker(seed)
        schema = maker.whole()
        body = {"model": self.model, "seed": seed, "temperature": maker.random.choice([0.7, 1, 2]),
                "max_tokens": maker.random.choice(LIMITS),
                "messages": [{"role": "user", "content": "x"}],
                "response_format": {"type": "json_schema",
                                    "json_schema": {"name": "n", "schema": schema}}}
        where = f"seed {seed}: {json.dumps(schema)[:2000]}"
        cut = False
        try:
            reply = self.ask(body)
            if reply["choices"][0]["finish_reason"] == "length" and body["max_tokens"] < LIMITS[-1]:
                cut = True
                reply = self.ask(body | {"max_tokens": LIMITS[-1]})
        except urllib.error.HTTPError as error:
            return f"{where}\n  {error.code} {error.read().decode()[:500]}", 0, cut
        choice = reply["choices"][0]
        text = choice["message"]["content"]
        tokens = reply["usage"]["completion_tokens"]
        if choice["finish_reason"] != "stop":
            return f"{where}\n  ended by {choice['finish_reason']}: {text!r}", tokens, cut
        try:
            value = json.loads(text)
            judge = jsonschema.Draft202012Validator
            judge(schema, format_checker=judge.FORMAT_CHECKER).validate(value)
        except (ValueError, jsonschema.ValidationError) as error:
            return f"{where}\n  {text!r}\n  {str(error)[:500]}", tokens, cut
        return "", tokens, cut

    def ask(self, body: dict[str, Any]) -> dict[str, Any]:
        """One answer."""
        request = urllib.request.Request(f"{self.url}/v1/chat/completions",
                                         json.dumps(body).encode(),
                                         {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.loads(answer.read())


def run(url: str, model: str, count: int, first: int) -> int:
    """Judges `count` seeds; the number that failed."""
    answers = Answers(url, model)
    failed = done = tokens = cuts = 0
    start = time.monotonic()
    with ThreadPoolExecutor(16) as pool:
        for wrong, length, cut in pool.map(answers.judge, range(first, first + count)):
            done += 1
            cuts += cut
            tokens += length
            if wrong:
                failed += 1
                print(f"FAILED {wrong}", flush=True)
            if done % 1000 == 0:
                print(f"{done} schemas, {tokens} tokens, {time.monotonic() - start:.0f} s",
                      flush=True)
    print(f"{cuts} answers were cut at the limit drawn and asked for again with {LIMITS[-1]}")
    print(f"{done - failed} passed, {failed} failed", flush=True)
    return failed


def main() -> int:
    """Up, questions, down."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    mesh_command = [str(ROOT / "mesh")]
    subprocess.run([*mesh_command, "up", "--name", INSTANCE, "--port", "0", "--detach",
                    "--no-build", "--no-restart"], check=True, stdout=subprocess.DEVNULL)
    try:
        state = json.loads((ROOT / "build" / "run" / INSTANCE / "state.json").read_text())
        return 1 if run(state["url"], state["model"], arguments.count, arguments.seed) else 0
    finally:
        subprocess.run([*mesh_command, "down", "--name", INSTANCE], check=True)


if __name__ == "__main__":
    sys.exit(main())
