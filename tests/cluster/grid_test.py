#!/usr/bin/env python3
"""The arithmetic of grid.py, over four made-up cases that can be checked by hand."""
import json
import tempfile
import unittest

import grid


def launch(case, number, *rows):
    keys = ("algorithm", "chunks", "time_us_median", "predicted_us", "picked")
    return json.dumps({"case": case, "launch": number, "rows": [dict(zip(keys, r), inter_bytes=1000.0) for r in rows]})


LINES = [
    # flat 100 ms (100, 98, 110: MAD 2%), two_level 120 ms; the pick is 20% off. Predictions: +10%, -10%.
    launch("a", 0, ("sliced flat", 1, 100e3, 110e3, False), ("sliced two_level", 1, 120e3, 108e3, True)),
    launch("a", 1, ("sliced flat", 1, 98e3, 110e3, False), ("sliced two_level", 1, 121e3, 108e3, True)),
    launch("a", 2, ("sliced flat", 1, 110e3, 110e3, False), ("sliced two_level", 1, 119e3, 108e3, True)),
    # n=4 is best; the pick n=1 is 2% off, inside 3%; two pairs 5% apart: nobody wins. Predictions: 0, 0, +4%.
    launch("b", 0, ("sliced flat", 1, 51e3, 51e3, True), ("sliced flat", 4, 50e3, 50e3, False),
           ("sliced gather", 1, 52.5e3, 54.6e3, False)),
    # Short: 1 ms, won by 3x, pick right.
    launch("c", 0, ("sliced flat", 1, 3e3, 1e3, False), ("sliced two_level", 1, 1e3, 1e3, True)),
]


class Grid(unittest.TestCase):
    def setUp(self):
        with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
            file.write("\n".join(LINES) + "\n")
            file.flush()
            self.judged = grid.judge_all(grid.read(file.name))

    def test_case_is_judged_by_medians(self):
        a = self.judged["a"]
        self.assertEqual(a["best"], ("sliced flat", 1))
        self.assertEqual(a["pick"], ("sliced two_level", 1))
        self.assertAlmostEqual(a["mad"], 0.02)  # 0, 2, 10 ms of 100
        self.assertAlmostEqual(a["regret"], 0.2)
        self.assertFalse(a["within"])
        self.assertTrue(a["wins"])

    def test_chunks_of_one_pair_do_not_compete_for_wins(self):
        b = self.judged["b"]
        self.assertEqual(b["best"], ("sliced flat", 4))
        self.assertFalse(b["wins"])
        self.assertTrue(b["within"])
        self.assertAlmostEqual(b["regret"], 0.02)

    def test_noise_widens_what_is_as_good(self):
        noisy = {("x", 1): {"times": [90.0, 100.0, 110.0], "row": {}},
                 ("y", 1): {"times": [115.0] * 3, "row": {"picked": True, "predicted_us": 100.0}}}
        self.assertTrue(grid.judge(noisy)["within"])  # 15% off, MAD 10%
        quiet = noisy | {("x", 1): {"times": [100.0] * 3, "row": {}}}
        self.assertFalse(grid.judge(quiet)["within"])

    def test_verdict_counts_long_operations_only(self):
        v = grid.verdict(self.judged)
        self.assertEqual((v["cases"], v["counted"]), (3, 2))
        self.assertAlmostEqual(v["within"], 0.5)
        self.assertAlmostEqual(v["regret_mean"], 0.11)
        self.assertAlmostEqual(v["regret_max"], 0.2)
        self.assertAlmostEqual(v["error_median"], 0.04)  # of 10, 10, 0, 0, 4 percent
        self.assertAlmostEqual(v["error_of_picks_median"], 0.05)  # of 10 and 0
        self.assertEqual(v["wins"], {"sliced flat": [1, 1], "sliced two_level": [1, 0]})
        self.assertEqual(v["pairs_with_5_wins"], 0)

    def test_without_predictions_there_is_no_verdict_on_picks(self):
        bare = {("x", 1): {"times": [50e3], "row": {"predicted_us": None, "inter_bytes": 1.0}}}
        v = grid.verdict(grid.judge_all({"case": bare}))
        self.assertIsNone(v["within"])
        self.assertIsNone(v["error_median"])
        self.assertEqual(v["wins"], {"x": [1, 1]})


if __name__ == "__main__":
    unittest.main()
