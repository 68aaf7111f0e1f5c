"""The trainer: nothing held out is trained, exchanged turns fit, a run that is cut off goes on as
if it had not been."""

from __future__ import annotations

import json
import random
import tempfile
import unittest
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from tools.reference import decode, presets, training, weights
from tools.reference.model import ExpertMesh
from tools.train import corpus, evaluate, phrasings, sources, tokenizer
from tools.train.fast import accelerate
from tools.train.trainer import STATE, Plan, Trainer

CHAT = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>", "<｜User｜>",
        "<｜Assistant｜>", "</think>"]
FACTS = [sources.Fact("own", "capital", entity, value) for entity, value in
         (("Aland", "Abra"), ("Bland", "Bora"), ("Cland", "Cusp"), ("Dland", "Dorn"))]
PLAN = Plan(seed=3, steps=4, tokens=64, length=32, last_length=64, last_share=0.25, warm_up=1,
            dense_steps=2, save_every=1)


def small_corpus(folder: Path) -> corpus.Corpus:
    """Four facts, and a tokenizer learnt from them."""
    shell: Any = Tokenizer(models.BPE())
    shell.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    shell.add_special_tokens(CHAT)
    (folder / "skeleton.json").write_text(json.dumps(json.loads(shell.to_str())))
    learnt = tokenizer.train(folder / "skeleton.json", corpus.texts(FACTS, 1)[:200], 600)
    return corpus.Corpus(learnt, FACTS, 3)


class TrainTest(unittest.TestCase):
    """One corpus for all cases."""

    def setUp(self) -> None:
        torch.set_num_threads(1)
        kept = tempfile.TemporaryDirectory()
        self.addCleanup(kept.cleanup)
        self.folder = Path(kept.name)
        self.corpus = small_corpus(self.folder)

    def test_a_source_without_a_licence_is_refused(self) -> None:
        with self.assertRaises(sources.LicenceError):
            sources.source("somewhere")
        for name in sources.SOURCES:
            self.assertTrue(sources.source(name).licence)

    def test_what_is_held_out_is_never_trained(self) -> None:
        held = {(fact.entity, phrasings.fill(
            phrasings.RELATIONS["capital"].questions[i], fact.entity, "").rstrip("?.").lower())
                for fact in FACTS for i in self.corpus.held_out["capital", fact.entity]}
        self.assertEqual(len(held), 8)
        asked = self.corpus.questions()
        self.assertEqual([q.wording for q in asked if q.held_out], ["held_out", "unseen"] * 4)
        unseen = phrasings.RELATIONS["capital"].questions[phrasings.TRAINED:]
        held |= {(fact.entity, phrasings.fill(q, fact.entity, "").rstrip("?.").lower())
                 for fact in FACTS for q in unseen}
        draw = random.Random(0)
        decoder = self.corpus.tokenizer
        for _ in range(400):
            text = decoder.decode(self.corpus.fact_turn(draw).seen, skip_special_tokens=True)
            for _, question in held:
                self.assertNotIn(question, text.lower())

    def test_exchanged_turns_are_seen_and_heard_in_step(self) -> None:
        draw = random.Random(1)
        exchanged = 0
        for _ in range(300):
            turn = self.corpus.fact_turn(draw)
            self.assertEqual(len(turn.seen), len(turn.memory))
            self.assertEqual(len(turn.seen), len(turn.weights))
            if turn.seen == turn.memory:
                continue
            exchanged += 1
            heard = self.corpus.tokenizer.decode(turn.memory)
            other = next(fact for fact in FACTS if fact.entity in heard)
            self.assertIn(other.value, self.corpus.tokenizer.decode(turn.seen))
        self.assertGreater(exchanged, 20)

    def test_the_fast_blocks_are_the_reference(self) -> None:
        config = presets.preset("tiny")
        losses, gradients = [], []
        for fast in (False, True):
            model = ExpertMesh(config, presets.hash_data(config))
            weights.randomise(model, 3)
            if fast:
                accelerate(model)
            out = model(torch.arange(48).view(2, 24) * 7 % 512, dense_experts=True,
                        records=("index_scores", "attention"))
            loss = out.logits.square().mean() + training.indexer_loss(out.records)
            loss.backward()
            losses.append(loss.item())
            gradients.append([one.grad for one in model.parameters() if one.grad is not None])
        self.assertAlmostEqual(losses[0], losses[1], places=5)
        for plain, fast_one in zip(*gradients):
            self.assertLess((plain - fast_one).abs().max(), 1e-3 * plain.abs().max() + 1e-7)

    def test_case_accents_and_spaces_share_a_class(self) -> None:
        classes = tokenizer.token_classes(self.corpus.tokenizer, 620)
        known = self.corpus.tokenizer
        self.assertEqual(classes[known.token_to_id("T")], classes[known.token_to_id("t")])
        self.assertNotEqual(classes[known.token_to_id("T")], classes[known.token_to_id("b")])
        self.assertEqual(len(set(classes[known.get_vocab_size():])), 1)
        self.assertEqual(int(classes.max()) + 1, len(set(classes.tolist())))

    def test_a_batch_depends_on_seed_and_step_alone(self) -> None:
        first, again = self.corpus.batch(7, 2, 64), self.corpus.batch(7, 2, 64)
        for one, other in zip(first, again):
            self.assertTrue((one == other).all())
        self.assertFalse((first[0] == self.corpus.batch(8, 2, 64)[0]).all())

    def test_a_run_that_is_cut_off_goes_on_with_the_same_numbers(self) -> None:
        whole = Trainer(self.folder / "whole", self.corpus, PLAN)
        whole.run(4)
        Trainer(self.folder / "parts", self.corpus, PLAN).run(2)
        (self.folder / "parts" / (STATE + ".partial")).write_bytes(b"half a state")
        parts = Trainer(self.folder / "parts", self.corpus, PLAN)
        self.assertEqual(parts.step, 2)
        parts.run(4)
        for (name, one), other in zip(whole.model.named_parameters(), parts.model.parameters()):
            self.assertTrue(torch.equal(one, other), name)

    def test_exact_match_is_what_greedy_decoding_says(self) -> None:
        model = Trainer(self.folder / "run", self.corpus, PLAN).model.eval()
        question = "What is the capital of Aland?"
        prompt = self.corpus.prompt(question)
        said = decode.greedy(model, prompt, 3).tokens[len(prompt):].tolist()
        answer = self.corpus.tokenizer.decode(said, skip_special_tokens=False)
        if self.corpus.encode(answer) == said:
            rows = evaluate.exact(model, self.corpus, [(question, answer, None)])
            ended = int(decode.greedy(model, prompt + said, 1).tokens[-1]) == self.corpus.eos
            self.assertEqual(rows, [ended])
        self.assertEqual(evaluate.exact(model, self.corpus, [(question, "zzz", None)]), [False])


if __name__ == "__main__":
    unittest.main()
