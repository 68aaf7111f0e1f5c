"""What models/demo must show, asked through running meshes with `expertmesh eval`.

Run by `./mesh test demo`; with --update the figures go into docs/demo-model.md. Every mesh has
a process of each kind, and two pools of experts.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "models" / "demo"
SETS = ROOT / "tests" / "demo"
PAGE = ROOT / "docs" / "demo-model.md"
BEGIN, END = "<!-- figures: ./mesh test demo --update -->", "<!-- end of figures -->"
TOOL = ROOT / "build" / "release" / "bin" / "expertmesh"


class Mesh:
    """A running instance."""

    def __init__(self, name: str) -> None:
        state = json.loads((ROOT / "build" / "run" / name / "state.json").read_text())
        self.url: str = state["url"]
        self.address = {one["name"]: one["grpc_address"] for one in state["processes"]}
        self.server = self.address["attention-0"]
        self.experts = ",".join(address for process, address in sorted(self.address.items())
                                if process.startswith("expert"))


@contextmanager
def running(name: str, *options: str) -> Iterator[Mesh]:
    """An instance with the debug door, brought down at the end."""
    name = f"demo-{name}"
    command = [str(ROOT / "mesh")]
    subprocess.run([*command, "up", "--name", name, "--port", "0", "--detach", "--no-build",
                    "--no-restart", "--debug-api", *options],
                   check=True, stdout=subprocess.DEVNULL)
    try:
        yield Mesh(name)
    finally:
        subprocess.run([*command, "down", "--name", name], check=True, stdout=subprocess.DEVNULL)


def measure(command: str, *options: str) -> dict[str, Any]:
    """The report of an `expertmesh eval` command."""
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        subprocess.run([str(TOOL), "eval", command, *options, "--json", report.name], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return json.loads(Path(report.name).read_text(encoding="utf-8"))


def percent(share: dict[str, Any]) -> str:
    """A share as a row shows it."""
    return f"{100 * share['share']:.2f} % of {share['asked']}"


class Report:
    """Rows of the table: what, the figure, what is asked, whether it holds."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str, str, bool | None]] = []

    def add(self, what: str, figure: str, asked: str = "", holds: bool | None = None) -> None:
        """A row, said at once; `holds` None is a figure that nothing is asked of."""
        self.rows.append((what, figure, asked, holds))
        print(f"{'FAILED' if holds is False else 'ok'} {what}: {figure}"
              f"{f' (asked: {asked})' if asked else ''}", flush=True)

    def table(self) -> str:
        """Markdown."""
        lines = ["| what | figure | asked |", "|---|---|---|"]
        lines += [f"| {what} | {figure} | {asked or '–'} |"
                  for what, figure, asked, _ in self.rows]
        return "\n".join(lines)


def questions(folder: Path, wording: str) -> str:
    """The part of recall.jsonl with one wording, as a file."""
    lines = [line for line in (SETS / "recall.jsonl").read_text(encoding="utf-8").splitlines()
             if json.loads(line)["wording"] == wording]
    path = folder / f"{wording}.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def recall(report: Report, mesh: Mesh, folder: Path) -> float:
    """Facts by wording, outside questions; the recall of trained wordings."""
    limits = {"trained": 0.95, "held_out": 0.80, "unseen": 0.0}
    shares = {}
    for wording, limit in limits.items():
        found = measure("recall", "--url", mesh.url, "--questions", questions(folder, wording),
                        "--outside", str(SETS / "outside.jsonl"))
        share = found["trained" if wording == "trained" else "held_out"]
        shares[wording] = share["share"]
        report.add(f"facts, exact answer, {wording.replace('_', '-')} wordings", percent(share),
                   f"at least {limit:.0%}" if limit else "", share["share"] >= limit or None)
        if wording == "trained":
            unknown = found["outside_unknown"]
            report.add("outside questions answered \"I don't know\"", percent(unknown),
                       "more often than an invention", unknown["share"] > 0.5)
    return shares["trained"]


def without_memory(report: Report, with_it: float, folder: Path) -> None:
    """Recall of the same model without its memory."""
    with running("no-memory", "--override", "engram_layer_ids=[]") as mesh:
        share = measure("recall", "--url", mesh.url, "--questions",
                        questions(folder, "trained"))["trained"]
    report.add("the same without the memory (`--override engram_layer_ids=[]`)", percent(share),
               "at most 60 % of recall with it", share["share"] <= 0.6 * with_it)


def beside(mesh: Mesh, name: str, texts: str, *options: str) -> dict[str, Any]:
    """Compares a variant with `mesh`, the reference."""
    with running(name, *options) as other:
        return measure("compare", "--server", other.server, "--reference", mesh.server, "--texts",
                       str(SETS / texts))


def selection(report: Report, mesh: Mesh) -> None:
    """64 positions against all of them, from position 256 on."""
    found = beside(mesh, "dense", "long_text.jsonl", "--override", "index_topk=null")
    ratio = 1 / found["perplexity_ratio"]
    report.add("perplexity, 64 positions selected / all (`index_topk=null`), positions 256 to "
               "1,023", f"{ratio:.4f}", "within 1 %", abs(ratio - 1) <= 0.01)


def arithmetic(report: Report, mesh: Mesh) -> None:
    """bf16 free-running against float32."""
    with running("f32", "--profile", "exact-f32") as exact:
        found = measure("compare", "--server", mesh.server, "--reference", exact.server, "--texts",
                        str(SETS / "text.jsonl"))
    report.add("bf16 against exact-f32: mean KL", f"{found['mean_kl']:.1e}", "at most 1e-3",
               found["mean_kl"] <= 1e-3)
    report.add("bf16 against exact-f32: same likeliest token",
               f"{100 * found['top1_agreement']:.2f} %", "at least 99 %",
               found["top1_agreement"] >= 0.99)


def stored_forms(report: Report, mesh: Mesh, folder: Path) -> None:
    """Weights stored in fewer bits against those as trained."""
    for form, limit in (("int8", 1.005), ("fp8-128", 1.005), ("int4", None), ("fp4", None)):
        directory = folder / form
        subprocess.run([str(TOOL), "model", "convert", "--from", str(MODEL), "--out",
                        str(directory), "--to", form], check=True, stdout=subprocess.DEVNULL)
        found = beside(mesh, form, "text.jsonl", "--model", str(directory))
        ratio = found["perplexity_ratio"]
        report.add(f"perplexity, weights in {form} / bf16",
                   f"{ratio:.4f}, KL {found['mean_kl']:.1e}",
                   f"at most {limit}" if limit else "", ratio <= limit if limit else None)


def memory_edit(report: Report, mesh: Mesh) -> None:
    """France and Brazil change places in the memory, and back."""
    found = measure("memory-edit", "--url", mesh.url, "--server", mesh.server, "--store",
                    mesh.address["engram"], "--model", str(MODEL), "--questions",
                    str(SETS / "edit.jsonl"), "--first", "France", "--second", "Brazil",
                    "--others", "0")
    report.add("memory of France and Brazil exchanged: their answers exchange",
               percent(found["exchanged"]), "they do", found["exchanged"]["share"] >= 0.95)
    report.add("… answers about others that stay", percent(found["stayed"]), "at least 98 %",
               found["stayed"]["share"] >= 0.98)
    report.add("… as before after the roll-back", percent(found["restored"]), "all",
               found["restored"]["share"] == 1)
    lane = found["lane"]
    report.add(f"… a lane of {lane['tokens']} tokens across the publish equals the old version",
               "bit for bit" if lane["equal_to_old_version"] else "no", "bit for bit",
               all(lane[key] for key in ("equal_to_old_version", "ran_across_publish",
                                         "new_version_differs")))


def run(report: Report) -> None:
    """All of it."""
    with tempfile.TemporaryDirectory() as kept, running("model") as mesh:
        folder = Path(kept)
        share = recall(report, mesh, folder)
        load = measure("load", "--expert", mesh.experts)
        report.add("largest share of an expert in a layer / mean, over these questions",
                   f"{load['worst_over_mean']:.2f}", "at most 6", load["worst_over_mean"] <= 6)
        score = measure("perplexity", "--server", mesh.server, "--texts", str(SETS / "text.jsonl"))
        report.add("perplexity of answers, conversations of 512 tokens",
                   f"{score['perplexity']:.4f}, top-1 {100 * score['top1']:.2f} %")
        without_memory(report, share, folder)
        selection(report, mesh)
        arithmetic(report, mesh)
        stored_forms(report, mesh, folder)
        memory_edit(report, mesh)


def settle(report: Report) -> None:
    """Writes the table between the marks of the page."""
    page = PAGE.read_text(encoding="utf-8")
    head, rest = page.split(BEGIN)
    tail = rest.split(END)[1]
    PAGE.write_text(f"{head}{BEGIN}\n{report.table()}\n{END}{tail}", encoding="utf-8")


def main() -> int:
    """Counts the rows of which something is asked."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--update", action="store_true", help="write docs/demo-model.md")
    update: bool = parser.parse_args().update
    report = Report()
    run(report)
    if update:
        settle(report)
    failed = sum(holds is False for *_, holds in report.rows)
    passed = sum(holds is True for *_, holds in report.rows)
    print(f"{passed} passed, {failed} failed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
