"""python -m tools.train run | export | evaluation | plots: see README.md."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
from pathlib import Path

import torch
from tokenizers import Tokenizer

from tools.reference import checkpoint

from . import corpus as corpus_module
from . import evaluate, evaluation_set, plots, sources, tokenizer
from .corpus import Corpus
from .trainer import LOG, Plan, Trainer

_BESIDE = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
           "generation_config.json")


def _corpus(folder: Path, skeleton: Path | None, plan: Plan) -> Corpus:
    """The corpus of a run; its tokenizer is learnt once and kept."""
    facts = sources.all_facts()
    kept = folder / "tokenizer.json"
    if not kept.exists():
        if skeleton is None:
            raise SystemExit("a new run needs --skeleton, a directory of `expertmesh model init`")
        folder.mkdir(parents=True, exist_ok=True)
        lines = corpus_module.texts(facts, plan.seed)
        tokenizer.train(skeleton / "tokenizer.json", lines, 4096).save(str(kept))
        for name in _BESIDE[1:]:
            shutil.copy(skeleton / name, folder / name)
    return Corpus(Tokenizer.from_file(str(kept)), facts, plan.seed)


def _plan(folder: Path, steps: int | None) -> Plan:
    kept = folder / "plan.json"
    if kept.exists():
        return Plan(**json.loads(kept.read_text()))
    plan = Plan(steps=steps) if steps else Plan()
    folder.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(dataclasses.asdict(plan), indent=1) + "\n")
    return plan


def export_model(folder: Path, trainer: Trainer, out: Path) -> None:
    """An ordinary model directory in bfloat16, written aside and renamed: never half of one."""
    if out.exists():
        raise SystemExit(f"{out} exists; move it away first")
    aside = out.with_name(out.name + ".partial")
    shutil.rmtree(aside, ignore_errors=True)
    checkpoint.save(aside, trainer.model, torch.bfloat16)
    for name in _BESIDE:
        shutil.copy(folder / name, aside / name)
    aside.rename(out)


def main() -> None:
    """Parses the command line and runs."""
    parser = argparse.ArgumentParser(prog="tools.train")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="train, or go on")
    run.add_argument("folder", type=Path)
    run.add_argument("--skeleton", type=Path, help="of `expertmesh model init --preset demo`")
    run.add_argument("--steps", type=int, help="of a new run")
    run.add_argument("--until", type=int, help="stop here; the rate still follows the whole plan")
    run.add_argument("--device", default="cpu")
    export = commands.add_parser("export", help="write a model directory")
    export.add_argument("folder", type=Path)
    export.add_argument("out", type=Path)
    evaluation = commands.add_parser("evaluation", help="write what `expertmesh eval` reads")
    evaluation.add_argument("folder", type=Path)
    evaluation.add_argument("out", type=Path)
    pictures = commands.add_parser("plots", help="draw an exported model and its training")
    pictures.add_argument("folder", type=Path)
    pictures.add_argument("model", type=Path, help="what export wrote")
    pictures.add_argument("out", type=Path)
    arguments = parser.parse_args()
    plan = _plan(arguments.folder, getattr(arguments, "steps", None))
    corpus = _corpus(arguments.folder, getattr(arguments, "skeleton", None), plan)
    if arguments.command == "evaluation":
        evaluation_set.write(arguments.out, corpus)
        return
    if arguments.command == "plots":
        plain = Corpus(corpus.tokenizer, corpus.facts, corpus.seed, exchanged=0.0)
        shares = plots.draw(checkpoint.load(arguments.model), plain,
                            arguments.folder / LOG, arguments.out)
        print("largest share of an expert over the mean, by layer:", shares)
        return
    trainer = Trainer(arguments.folder, corpus, plan, getattr(arguments, "device", "cpu"))
    if arguments.command == "run":
        trainer.run(min(arguments.until or plan.steps, plan.steps), evaluate.check)
        return
    export_model(arguments.folder, trainer, arguments.out)


if __name__ == "__main__":
    main()
