"""`./mesh bench context`: what a decode step costs over the length of the context."""

from __future__ import annotations

from mesh.bench_run import Options, Report, floor, tool
from mesh.errors import MeshError

LAYERS, FULL_LAYERS = 12, 5  # of bench-1b-full (docs/model-family.md §6)
SHORTEST = 64  # what is left at this length does not depend on the context
DENSE_REFERENCE = 131072
LATENT_BYTES = 2 * (512 + 64)  # bf16 entry of a token and layer
OPERATIONS = 2 * 16 * (512 + 64 + 512)  # of the heads with an entry: score, then sum
QUICK_LENGTHS = (4096, 32768)
LENGTHS = (4096, 16384, 65536, 131072, 524288, 1048576)


def context(options: Options) -> None:
    """Attention of the twelve layers of bench-1b-full from steps of two layers: what grows with the
    context is taken apart into layers that index for themselves and layers that share."""
    lengths = options.lengths or (QUICK_LENGTHS if options.quick else LENGTHS)
    if min(lengths) <= SHORTEST:
        raise MeshError(f"--lengths: more than {SHORTEST}")
    report = Report("context", options, "1 M sparse / 128 K dense <= 0.5; dense >= 0.5 of its "
                    "roofline at 128 K")
    read = floor(options)
    report.facts["stream_read_gb_s"] = read / 1e9
    lines = tool("expertmesh-bench-model", "context", options.profile, str(options.threads[0]),
                 str(9 if options.quick else 21), str(SHORTEST), *map(str, lengths))
    step = {(line["layers"], line["length"]): line["step_ms"] for line in lines if "length" in line}
    peak = next((line["f32_gop_s"] for line in lines
                 if line["layers"] == "dense_dense" and "f32_gop_s" in line), 0.0) * 1e9
    report.facts["f32_gop_s"] = peak / 1e9

    def grown(kind: str, length: int) -> float:
        return step[kind, length] - step[kind, SHORTEST]

    dense_ms = {}
    for length in lengths:
        full = grown("full_full", length) / 2
        shared = grown("full_shared", length) - full
        dense = grown("dense_dense", length) / 2
        fixed = step["full_shared", SHORTEST] / 2
        fixed_dense = step["dense_dense", SHORTEST] / 2
        dense_ms[length] = LAYERS * (fixed_dense + dense)
        sparse = LAYERS * fixed + FULL_LAYERS * full + (LAYERS - FULL_LAYERS) * shared
        report.add(length=length, full_layer_ms=full, shared_layer_ms=shared, dense_layer_ms=dense,
                   sparse_step_ms=sparse, dense_step_ms=dense_ms[length],
                   **{"sparse/dense": sparse / dense_ms[length],
                      # Entries are read once and used by every head: the slower of the two.
                      "dense_roofline_share": max(length * LATENT_BYTES / read, length *
                                                  OPERATIONS / peak if peak else 0) /
                                              (dense / 1e3)})
    if DENSE_REFERENCE in dense_ms:
        longest = report.rows[-1]
        report.facts["longest sparse / 128 K dense"] = (
            longest["sparse_step_ms"] / dense_ms[DENSE_REFERENCE])
    report.finish()
