"""The parameter table of docs/model-family.md §6, row by row."""

import dataclasses
import unittest

from tools.reference.checkpoint import new_model
from tools.reference.counts import (active, count, count_tensors, engram_share, kv_elements,
                                    sparse_parameters)
from tools.reference.presets import preset

# In the order of the rows: embedding, head, MLA, indexer, mHC, norms, dense, routed, shared,
# gates, tables, projections; then total, active, P_sparse, share in percent, KV elements.
TABLE = {
    "tiny": ((32768, 32768, 197760, 22368, 62739, 704, 30720, 786432, 24576, 8320, 108672, 82944),
             1390771, 856371, 501632, 21.7, 248),
    "demo": ((1048576, 0, 564000, 64704, 250131, 2816, 589824, 6291456, 98304, 65792, 1410496,
              659456), 11045555, 4916979, 6128576, 23.0, 496),
    "bench-1b": ((32768000, 32768000, 95173632, 0, 0, 25600, 12582912, 1107296256, 17301504,
                  721600, 0, 0), 1298637504, 435397312, 830472192, 0.0, 6912),
    "bench-1b-full": ((32768000, 32768000, 95173632, 4629760, 2376333, 25600, 12582912,
                       1107296256, 17301504, 721600, 241511552, 7880704),
                      1555035853, 450285645, 1071982208, 22.5, 7552),
    "1t": ((926679040, 926679040, 5865197568, 119017472, 79940673, 838656, 792723456,
            789200240640, 1541406720, 205549568, 196613849600, 440516608),
           996712639041, 34634389569, 961151570432, 20.5, 35456),
}


class CountsTest(unittest.TestCase):
    def test_the_whole_table(self) -> None:
        for name, (rows, total, used, sparse, share, kv) in TABLE.items():
            with self.subTest(preset=name):
                config = preset(name)
                self.assertEqual(dataclasses.astuple(count(config)), rows)
                self.assertEqual(count(config).total, total)
                self.assertEqual(active(config), used)
                self.assertEqual(sparse_parameters(config), sparse)
                self.assertEqual(round(100 * engram_share(config), 1), share)
                self.assertEqual(kv_elements(config), kv)

    def test_tiny_v3(self) -> None:
        config = preset("tiny-v3")
        self.assertEqual((count(config).total, active(config), kv_elements(config)),
                         (1114048, 688064, 200))

    def test_active_part_and_bytes_of_1t(self) -> None:
        self.assertEqual(round(100 * 34634389569 / 996712639041, 1), 3.5)
        self.assertEqual(2 * kv_elements(preset("1t")), 70912)
        self.assertEqual(58 * 656 + 16 * 132, 40160)

    def test_the_tensors_hold_as_many(self) -> None:
        for name in ("tiny", "demo"):
            config = preset(name)
            self.assertEqual(count_tensors(new_model(config)), count(config))
