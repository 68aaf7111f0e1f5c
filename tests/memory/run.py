"""Memory of an expert worker that holds a quarter of the experts of `bench-1b`.

Run by `./mesh test memory`. Starts the instance `memory` with four pools, sends prompts until every
hosted expert of every worker was used, then compares each worker's PSS (/proc/PID/smaps_rollup)
with a quarter of the expert bytes plus 100 MiB. Ends with `N passed, N failed`.
"""

from __future__ import annotations

import http.client
import json
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "cli"))

from mesh import model as models  # noqa: E402

INSTANCE = "memory"
POOLS = 4
MIB = 1 << 20
SLACK_BYTES = 100 * MIB
REQUESTS_MAX = 40
PROMPT_TOKENS = 384


def get(address: str, path: str) -> Any:
    """A JSON page."""
    connection = http.client.HTTPConnection(address, timeout=10)
    connection.request("GET", path)
    return json.loads(connection.getresponse().read())


def complete(url: str, model: str, tokens: list[int]) -> None:
    """One request of token ids with one answer token: prefill is what touches the experts."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=600)
    body = {"model": model, "prompt": tokens, "max_tokens": 1, "temperature": 0}
    connection.request("POST", "/v1/completions", json.dumps(body),
                       {"Content-Type": "application/json"})
    answer = connection.getresponse()
    text = answer.read().decode()
    if answer.status != 200:
        raise RuntimeError(f"HTTP {answer.status}: {text}")


def use_all_experts(state: dict[str, Any], workers: list[dict[str, Any]], vocab: int) -> int:
    """Sends random prompts until all hosted experts were used; the number of requests."""
    draw = random.Random(1)
    for count in range(1, REQUESTS_MAX + 1):
        complete(state["url"], state["model"],
                 [draw.randrange(vocab) for _ in range(PROMPT_TOKENS)])
        pages = [get(worker["admin_address"], "/statusz")["experts"] for worker in workers]
        if all(page["used"] == page["hosted"] for page in pages):
            return count
    used = ", ".join(f"{page['used']} of {page['hosted']}" for page in pages)
    raise RuntimeError(f"after {REQUESTS_MAX} requests the workers have used {used} experts")


def pss_bytes(pid: int) -> int:
    """Proportional set size: shared pages count by their share."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Pss:\s+(\d+) kB", text, re.M)
    if found is None:
        raise RuntimeError(f"no Pss for process {pid}")
    return int(found[1]) * 1024


def measure(directory: Path) -> tuple[int, int]:
    """Passed and failed workers of a running instance."""
    state = json.loads((ROOT / "build" / "run" / INSTANCE / "state.json").read_text())
    workers = [one for one in state["processes"] if one["role"] == "expert-worker"]
    shown = models.show(directory)
    expert_bytes = shown["parts"]["routed_experts"]["bytes"]
    requests = use_all_experts(state, workers, shown["vocab_size"])
    limit = expert_bytes // POOLS + SLACK_BYTES
    print(f"routed experts of bench-1b: {expert_bytes / MIB:.1f} MiB; a quarter plus 100 MiB: "
          f"{limit / MIB:.1f} MiB; {requests} prompts of {PROMPT_TOKENS} tokens")
    failed = 0
    for worker in workers:
        page = get(worker["admin_address"], "/statusz")["experts"]
        pss = pss_bytes(worker["pid"])
        quarter = page["experts_per_layer"] * POOLS == page["of"]
        good = pss <= limit and quarter and page["used"] == page["hosted"]
        failed += not good
        print(f"{'ok' if good else 'FAILED'} {worker['name']}: PSS {pss / MIB:.1f} MiB, "
              f"{page['experts_per_layer']} of {page['of']} experts per layer, "
              f"{page['used']} of {page['hosted']} used", flush=True)
    return len(workers) - failed, failed


def main() -> int:
    """Makes the model once, runs the instance, measures."""
    directory = models.preset("bench-1b")
    mesh = str(ROOT / "mesh")
    subprocess.run([mesh, "up", "--name", INSTANCE, "--port", "0", "--detach", "--no-build",
                    "--no-restart", "--model", str(directory), "--experts", str(POOLS),
                    "--timeout", "600"],
                   check=True, stdout=subprocess.DEVNULL)
    try:
        passed, failed = measure(directory)
    except (RuntimeError, OSError, KeyError) as error:
        print(f"FAILED: {error}")
        passed, failed = 0, 1
    finally:
        subprocess.run([mesh, "down", "--name", INSTANCE], check=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
