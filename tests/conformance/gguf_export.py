"""`expertmesh model export --gguf` read back with PyPI `gguf`: every value, under its name.

Run by `./mesh test conformance --only gguf`, in an environment with gguf and numpy. Exports a model
in every type and form of kv_b, and compares what the package decodes with the model's own files.
Ends with `N passed, N failed`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy
from gguf import GGUFReader, dequantize

Q8_ERROR = 1 / 127  # of a block's largest value, half a step and the F16 of the scale included
LAYER_NAMES = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "attn_q_a": "self_attn.q_a_proj", "attn_q_a_norm": "self_attn.q_a_layernorm",
    "attn_q_b": "self_attn.q_b_proj", "attn_kv_a_mqa": "self_attn.kv_a_proj_with_mqa",
    "attn_kv_a_norm": "self_attn.kv_a_layernorm", "attn_kv_b": "self_attn.kv_b_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate_inp": "mlp.gate",
}
GLOBAL_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm",
                "output": "lm_head"}


def read_safetensors(path: Path) -> dict[str, Any]:
    """F32 and BF16 tensors of one file, as float32."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    found = {}
    for name, entry in json.loads(data[8:8 + size]).items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        raw = data[8 + size + begin:8 + size + end]
        if entry["dtype"] == "F32":
            values = numpy.frombuffer(raw, numpy.float32)
        else:
            wide = numpy.frombuffer(raw, numpy.uint16).astype(numpy.uint32) << 16
            values = wide.view(numpy.float32)
        found[name] = values.reshape(entry["shape"])
    return found


def expected(name: str, source: dict[str, Any], config: dict[str, Any]) -> Any:
    """What a tensor of the file must hold, from the model's own tensors."""
    stem = name.removesuffix(".weight")
    if stem in GLOBAL_NAMES:
        return source[GLOBAL_NAMES[stem] + ".weight"]
    _, layer, part = stem.split(".", 2)
    prefix = f"model.layers.{layer}."
    if part == "exp_probs_b.bias":
        return source[prefix + "mlp.gate.e_score_correction_bias"]
    if part in LAYER_NAMES:
        return source[f"{prefix}{LAYER_NAMES[part]}.weight"]
    if part in ("attn_k_b", "attn_v_b"):
        keys, values = config["qk_nope_head_dim"], config["v_head_dim"]
        heads = source[prefix + "self_attn.kv_b_proj.weight"].reshape(
            config["num_attention_heads"], keys + values, config["kv_lora_rank"])
        return heads[:, :keys].transpose(0, 2, 1) if part == "attn_k_b" else heads[:, keys:]
    kind = part.split("_")[1]
    if part.endswith("_exps"):
        return numpy.stack([source[f"{prefix}mlp.experts.{e}.{kind}_proj.weight"]
                            for e in range(config["n_routed_experts"])])
    middle = "shared_experts." if part.endswith("_shexp") else ""
    return source[f"{prefix}mlp.{middle}{kind}_proj.weight"]


def error_of(tensor: Any, want: Any) -> float:
    """0 where every value is as the type allows, else by how much one is off."""
    have = dequantize(tensor.data, tensor.tensor_type).reshape(want.shape)
    kind = tensor.tensor_type.name
    if kind == "F32":
        return float(abs(have - want).max())
    if kind == "BF16":
        return float((abs(have - want) - abs(want) * 2.0**-8).max().clip(min=0))
    blocks = abs(want).reshape(-1, 32).max(axis=1, keepdims=True)
    return float((abs(have - want).reshape(-1, 32) - blocks * Q8_ERROR).max().clip(min=0))


def check(path: Path, source: dict[str, Any], config: dict[str, Any]) -> str:
    """"" or what is wrong with a file."""
    reader = GGUFReader(path)
    if reader.fields["general.architecture"].contents() != "deepseek2":
        return "another architecture"
    tokens = reader.fields["tokenizer.ggml.tokens"]
    if len(tokens.data) != config["vocab_size"]:
        return f"{len(tokens.data)} tokens"
    count = 0
    for tensor in reader.tensors:
        want = expected(tensor.name, source, config)
        if [int(n) for n in tensor.shape] != list(want.shape)[::-1]:
            return f"{tensor.name}: shape {tensor.shape}, not {want.shape}"
        off = error_of(tensor, want)
        if off > 0:
            return f"{tensor.name} ({tensor.tensor_type.name}): off by {off}"
        count += want.size
    total = sum(values.size for values in source.values())
    return "" if count == total else f"{count} values of {total}"


def main() -> int:
    """Every type and form."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", required=True)
    parser.add_argument("--model", type=Path, required=True)
    args = parser.parse_args()
    source = read_safetensors(args.model / "model.safetensors")
    config = json.loads((args.model / "config.json").read_text())
    passed = failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("f32", "bf16", "q8_0"):
            for kv_b in ("split", "joined"):
                path = Path(folder) / f"{kind}-{kv_b}.gguf"
                subprocess.run([args.binary, "model", "export", "--gguf", "--type", kind, "--kv-b",
                                kv_b, str(args.model), str(path)], check=True,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                wrong = check(path, source, config)
                print(f"{'FAILED' if wrong else 'ok'} {kind} {kv_b} {wrong}".rstrip())
                passed, failed = passed + (not wrong), failed + bool(wrong)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
