"""`./mesh bench logits`: our logits beside those of an engine that is not ours, on the file that
`expertmesh model export --gguf` made of the same weights."""

from __future__ import annotations

from mesh import bench_peer, model
from mesh.bench_run import RESULTS, Options, Report, random_lanes, tool, write_requests
from mesh.bench_sides import Peer
from mesh.errors import MeshError

TOKENS, QUICK_TOKENS = 256, 48
# How the peer computes attention from each form of kv_b.
FORMS = {"split": {"threads": 2, "mla": 1, "flash_attention": False, "fused_moe": False},
         "joined": {"threads": 2, "mla": 0, "flash_attention": False, "fused_moe": False}}


def logits(options: Options) -> None:
    """Teacher-forced random tokens, one lane."""
    if not options.peer:
        raise MeshError("logits has nothing to compare with without the peer", 2)
    directory = options.directory()
    vocab = int(model.show(directory)["vocab_size"])
    count = QUICK_TOKENS if options.quick else TOKENS
    requests = random_lanes(vocab, 1, count, 1, 1)
    path = write_requests(RESULTS / "logits.requests", [(0.0, 1, requests[0][2], [])])
    report = Report("logits", options, "mean KL <= 1e-3 on the BF16 file")
    for profile in dict.fromkeys(("exact-f32", options.profile)):
        ours = RESULTS / f"logits-{profile}.f32"
        tool("expertmesh-bench-model", "logits", str(directory), profile,
             str(options.threads[0]), str(path), str(ours))
    for kv_b, settings in FORMS.items():
        gguf = bench_peer.gguf(directory, options.profile, kv_b)
        with Peer(options, gguf, settings) as peer:
            peer.open(1, count + 16)
            report.facts["peer"] = f"{bench_peer.NAME} ({bench_peer.version()}): " + \
                peer.about["system"]
            for profile in dict.fromkeys(("exact-f32", options.profile)):
                report.add(kv_b=kv_b, ours=profile, tokens=count, **peer.ask(
                    op="compare", ids=requests[0][2],
                    file=str(RESULTS / f"logits-{profile}.f32")))
    report.finish()
