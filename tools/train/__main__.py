"""python -m tools.train run FOLDER | export FOLDER OUT | questions FOLDER: see README.md."""

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
from . import evaluate, sources, tokenizer
from .corpus import Corpus
from .trainer import Plan, Trainer


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
        for name in ("tokenizer_config.json", "special_tokens_map.json", "generation_config.json"):
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
    questions = commands.add_parser("questions", help="the evaluation as JSON lines")
    questions.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    plan = _plan(arguments.folder, getattr(arguments, "steps", None))
    corpus = _corpus(arguments.folder, getattr(arguments, "skeleton", None), plan)
    if arguments.command == "questions":
        for question in corpus.questions():
            print(json.dumps(dataclasses.asdict(question), ensure_ascii=False))
        return
    trainer = Trainer(arguments.folder, corpus, plan, getattr(arguments, "device", "cpu"))
    if arguments.command == "run":
        trainer.run(min(arguments.until or plan.steps, plan.steps), evaluate.check)
        return
    aside = arguments.out.with_name(arguments.out.name + ".partial")
    shutil.rmtree(aside, ignore_errors=True)
    checkpoint.save(aside, trainer.model, torch.bfloat16)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
                 "generation_config.json"):
        shutil.copy(arguments.folder / name, aside / name)
    aside.rename(arguments.out)


if __name__ == "__main__":
    main()
