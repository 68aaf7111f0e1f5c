"""Primes, multipliers and row ids against the constants of docs/formats.md §12."""

import unittest

import numpy as np

from tools.reference.hashing import (HashTable, check_tables, choose_multipliers, choose_primes,
                                     choose_tables, hash_rows)
from tools.reference.presets import preset

LAYER_1 = [57, 79, 81, 97, 121, 129, 133, 183, 189, 207, 211, 253, 277, 289, 307, 321,
           339, 381, 393, 399, 403, 409, 447, 463]
LAYER_14 = [477, 487, 499, 507, 511, 573, 609, 627, 667, 669, 693, 697, 711, 729, 759, 769,
            781, 799, 813, 819, 841, 877, 879, 889]


def tables_16m() -> dict[int, HashTable]:
    return choose_tables((1, 14), 16_000_000, 4, 8, 99092, 0)


class HashingTest(unittest.TestCase):
    def test_primes(self) -> None:
        tables = tables_16m()
        self.assertEqual((tables[1].primes - 16_000_000).tolist(), LAYER_1)
        self.assertEqual((tables[14].primes - 16_000_000).tolist(), LAYER_14)
        self.assertEqual((tables[1].rows, tables[14].rows), (384006168, 384016682))

    def test_toy_primes(self) -> None:
        primes = choose_primes(100, 2, 3, 2)
        self.assertEqual([own.tolist() for own in primes],
                         [[101, 103, 107, 109], [113, 127, 131, 137]])

    def test_multipliers(self) -> None:
        self.assertEqual(choose_multipliers(1, 99092, 4, 0).tolist(),
                         [76632096046245, 4839876093313, 35959672319349, 73987337458391])
        self.assertEqual(choose_multipliers(14, 99092, 4, 0).tolist(),
                         [67716810739261, 51510806800915, 30921347202721, 82619226485591])
        self.assertEqual(choose_multipliers(1, 1000, 3, 0).tolist(),
                         [7593627661414631, 479593001838623, 3563315849468963])
        self.assertEqual(choose_multipliers(0, 1000, 3, 0).tolist(),
                         [5874934615388535, 2488343231644625, 377914054924497])

    def test_rows(self) -> None:
        tables = tables_16m()
        classes, history = np.array([[5, 17, 99091, 42]]), np.full((1, 3), 7)
        rows = hash_rows(classes, history, tables[1])
        self.assertEqual(rows[0, 0, ::8].tolist(), [6961830, 138376174, 266485882])
        self.assertEqual(rows[0, 3, ::8].tolist(), [13131409, 140379165, 266257160])
        rows = hash_rows(classes, history, tables[14])
        self.assertEqual(rows[0, 3, ::8].tolist(), [3275938, 142937982, 257163254])

    def test_chunks_hash_like_the_whole_and_like_plain_integers(self) -> None:
        table = choose_tables((1,), 400, 3, 2, 256, 0)[1]
        self.assertTrue((table.multipliers > 2**53).any())  # a double would lose bits
        classes = np.random.default_rng(3).integers(0, 256, (2, 23))
        history = np.full((2, 2), 1)
        whole = hash_rows(classes, history, table)
        for size in (1, 2, 3, 7, 23):
            before, parts = history, []
            for start in range(0, 23, size):
                chunk = classes[:, start:start + size]
                parts.append(hash_rows(chunk, before, table))
                before = np.concatenate((before, chunk), 1)[:, -2:]
            np.testing.assert_array_equal(np.concatenate(parts, 1), whole)
        m, p = table.multipliers.tolist(), table.primes.tolist()
        ids = [1, 1, *classes[0].tolist()]
        for t in range(23):
            two = ids[t + 2] * m[0] ^ ids[t + 1] * m[1]
            three = two ^ ids[t] * m[2]
            expected = [two % p[0], two % p[1] + p[0], three % p[2] + p[0] + p[1],
                        three % p[3] + p[0] + p[1] + p[2]]
            self.assertEqual(whole[0, t].tolist(), expected)
        bound = np.concatenate(([0], np.cumsum(table.primes)))
        self.assertTrue((whole >= bound[:-1]).all() and (whole < bound[1:]).all())

    def test_presets_have_the_rows_of_the_table(self) -> None:
        self.assertEqual(preset("tiny").engram_num_embeddings, (1650, 1746))
        self.assertEqual(preset("demo").engram_num_embeddings, (21800, 22278))
        self.assertEqual(preset("bench-1b-full").engram_num_embeddings, (3771012, 3776224))

    def test_a_reader_refuses_numbers_that_cannot_be(self) -> None:
        good = np.array([101, 103, 107, 109])
        odd = np.array([3, 5, 7])
        check_tables({1: HashTable(good, odd)}, 100, 1000)
        for tables in ({1: HashTable(np.array([97, 103, 107, 109]), odd)},
                       {1: HashTable(good, odd), 3: HashTable(good, odd)},
                       {1: HashTable(good, np.array([3, 4, 7]))},
                       {1: HashTable(good, np.array([3, 5, 2**60 + 1]))}):
            with self.assertRaises(ValueError):
                check_tables(tables, 100, 1000)
