"""A peer of `./mesh bench`: ik_llama.cpp over its Python binding, driven by lines of JSON.

Runs in an environment of its own (cli/mesh/bench_peer.py). `peer_engine.py FILE.gguf [MODEL
SETTINGS]` loads the file, prints {"ready": …} and then answers every line of standard input with
one of standard output:

  {"op": "open", "lanes": N, "context": tokens per lane, "settings": {…}}   a new context
  {"op": "run", "lanes": [[prompt ids, forced ids], …]}                     seconds of both phases
  {"op": "compare", "ids": [...], "file": PATH}      its logits of every position against ours in
                                                     PATH, F32 [tokens, vocab]

Every lane is computed with the tokens it is given, whatever the logits say: prompts lane by lane,
then one batch of all lanes a step, with the logits of every row asked for, as a server would.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import time
from typing import Any

import numpy
from ik_llama_cpp import _ctypes_api as api
from ik_llama_cpp._lib_loader import load_shared_library

MODEL_SETTINGS = {"repack": "repack_tensors", "merge_experts": "merge_up_gate_exps"}
CONTEXT_SETTINGS = {"flash_attention": "flash_attn", "mla": "mla_attn",
                    "fused_moe": "fused_moe_up_gate", "ubatch": "n_ubatch"}


class Engine:
    """A loaded model and, after open(), a context."""

    def __init__(self, path: str, settings: dict[str, Any]) -> None:
        api.llama_backend_init()
        params = api.llama_model_default_params()
        for name, value in settings.items():
            setattr(params, MODEL_SETTINGS[name], value)
        self.model = api.llama_model_load_from_file(path.encode(), params)
        if not self.model:
            raise SystemExit(f"peer: cannot load {path}")
        self.vocab = api.llama_vocab_n_tokens(api.llama_model_get_vocab(self.model))
        self.context: Any = None
        self.batch: Any = None
        self.batch_max = 0

    def open(self, lanes: int, context: int, settings: dict[str, Any]) -> None:
        """Replaces the context."""
        if self.context:
            api.llama_batch_free(self.batch)
            api.llama_free(self.context)
        params = api.llama_context_default_params()
        chosen = dict(settings)
        threads = chosen.pop("threads")
        self.batch_max = max(int(chosen.get("ubatch", 512)), lanes)
        params.n_ctx = lanes * context
        params.n_batch = self.batch_max
        params.n_seq_max = lanes
        params.n_threads = params.n_threads_batch = threads
        for name, value in chosen.items():
            setattr(params, CONTEXT_SETTINGS[name], value)
        self.context = api.llama_init_from_model(self.model, params)
        if not self.context:
            raise SystemExit(f"peer: no context with {settings}")
        self.batch = api.llama_batch_init(self.batch_max, 0, 1)

    def decode(self, rows: list[tuple[int, int, int, bool]]) -> None:
        """One batch of (token, position, lane, wants logits)."""
        batch = self.batch
        batch.n_tokens = len(rows)
        for i, (token, position, lane, wants) in enumerate(rows):
            batch.token[i] = token
            batch.pos[i] = position
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = lane
            batch.logits[i] = int(wants)
        code = api.llama_decode(self.context, batch)
        if code != 0:
            raise SystemExit(f"peer: llama_decode ended with {code}")

    def prefill(self, lane: int, ids: list[int]) -> None:
        """A prompt in batches; the logits of its last token."""
        for begin in range(0, len(ids), self.batch_max):
            part = ids[begin:begin + self.batch_max]
            self.decode([(token, begin + i, lane, begin + i + 1 == len(ids))
                         for i, token in enumerate(part)])

    def run(self, lanes: list[list[list[int]]]) -> dict[str, float]:
        """Prompts, then steps."""
        api.llama_kv_cache_clear(self.context)
        start = time.perf_counter()
        for lane, (prompt, _) in enumerate(lanes):
            self.prefill(lane, prompt)
        middle = time.perf_counter()
        steps = min(len(forced) for _, forced in lanes) - 1  # the last token is not fed back
        for step in range(steps):
            self.decode([(forced[step], len(prompt) + step, lane, True)
                         for lane, (prompt, forced) in enumerate(lanes)])
            for lane in range(len(lanes)):
                api.llama_get_logits_ith(self.context, lane)
        return {"prefill_s": middle - start, "decode_s": time.perf_counter() - middle,
                "steps": steps}

    def compare(self, ids: list[int], file: str) -> dict[str, float]:
        """KL(peer || ours) per token in nats, and how often both have the same likeliest token."""
        api.llama_kv_cache_clear(self.context)
        ours = numpy.fromfile(file, numpy.float32).reshape(len(ids), self.vocab)
        theirs = numpy.empty_like(ours)
        for begin in range(0, len(ids), self.batch_max):
            part = ids[begin:begin + self.batch_max]
            self.decode([(token, begin + i, 0, True) for i, token in enumerate(part)])
            for i in range(len(part)):
                row = api.llama_get_logits_ith(self.context, i)
                theirs[begin + i] = numpy.ctypeslib.as_array(row, (self.vocab,))
        p, q = log_softmax(theirs), log_softmax(ours)
        divergence = (numpy.exp(p) * (p - q)).sum(axis=1)
        same = (theirs.argmax(axis=1) == ours.argmax(axis=1)).mean()
        return {"mean_kl": float(divergence.mean()), "max_kl": float(divergence.max()),
                "top1_equal": float(same), "logit_sigma": float(theirs.std()),
                "largest_difference_in_sigma": float(abs(theirs - ours).max() / theirs.std())}


def log_softmax(logits: Any) -> Any:
    """Rows of natural logarithms, in float64."""
    wide = logits.astype(numpy.float64)
    wide -= wide.max(axis=1, keepdims=True)
    return wide - numpy.log(numpy.exp(wide).sum(axis=1, keepdims=True))


def main() -> None:
    """Loads, then serves."""
    # The engine's own lines go to standard error, ours to what was standard output.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    settings = json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}
    engine = Engine(sys.argv[1], settings)

    def say(value: Any) -> None:
        out.write(json.dumps(value) + "\n")
        out.flush()

    say({"ready": True, "vocab": engine.vocab, "system": system_info()})
    operations = {"open": engine.open, "run": engine.run, "compare": engine.compare}
    for line in sys.stdin:
        request = json.loads(line)
        op = request.pop("op")
        say(operations[op](**request) or {})


def system_info() -> str:
    """The instruction sets that the library was built for."""
    library = load_shared_library()
    library.llama_print_system_info.restype = ctypes.c_char_p
    fields = library.llama_print_system_info().decode().split("|")
    return " ".join(field.split()[0] for field in fields if field.strip().endswith("= 1"))


if __name__ == "__main__":
    main()
