"""Tests of what needs no peer: `python3 -m unittest discover benches/peers`"""

import contextlib
import io
import json
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from peers import cpu, docstrings, environment, loss, loss_page, options, report, results, rounds, train
from peers.ids import random_ids
from peers.results import Result
from peers.rounds import Comparison, Limits
from peers.subjects import Alone, Failed, Speeds


class Fake(Alone):
    """Gives one figure after the other; None is a failure."""

    def __init__(self, name, *figures):
        super().__init__(name)
        self.left = list(figures)
        self.settings = {"version": "1"}

    def measure(self):
        figure = self.left.pop(0)
        if figure is None:
            raise Failed("broken")
        return {"decode at 16": figure}


class Unable(Fake):
    def start(self):
        raise Failed("not for this CPU")


def compare(subjects, rounds_, foreign=(), **options_):
    """With the share of other programs in each measurement given."""
    shares = iter(foreign)
    meter = mock.Mock(**{"foreign_share.side_effect": lambda: next(shares, 0.0)})
    with (
        mock.patch.object(rounds, "CpuMeter", return_value=meter),
        mock.patch.object(rounds, "SETTLE_SECONDS", 0),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        comparison = Comparison("decode", "decode, test", subjects, **options_)
        return rounds.compare(comparison, Limits(rounds_, max_foreign=0.1))


class Rounds(unittest.TestCase):
    def test_ratios_are_within_rounds(self):
        result = compare([Fake("pocketgpt q4", 10, 30, 20), Fake("peer", 5, 10, 20)], 3)
        self.assertEqual(result.ratios("decode at 16"), {"peer": [2, 3, 1]})
        self.assertEqual(result.medians("decode at 16"), {"pocketgpt q4": 20, "peer": 10})

    def test_less_is_better_turns_the_ratio_round(self):
        subjects = [Fake("pocketgpt q4", 10), Fake("peer", 40)]
        result = compare(subjects, 1, unit="ms", more_is_better=False)
        self.assertEqual(result.ratios("decode at 16"), {"peer": [4]})

    def test_disturbed_rounds_are_measured_again(self):
        subjects = [Fake("pocketgpt q4", 1, 2, 3), Fake("peer", 1, 1, 1)]
        result = compare(subjects, 2, foreign=[0.0, 0.5, 0.0, 0.0, 0.0, 0.05])
        self.assertEqual(result.ratios("decode at 16"), {"peer": [2, 3]})
        self.assertEqual((result.rounds_dropped, result.foreign), (1, [0.0, 0.05]))

    def test_it_ends_on_a_machine_that_is_never_quiet(self):
        subjects = [Fake("pocketgpt q4", *range(1, 10)), Fake("peer", *[1] * 9)]
        result = compare(subjects, 2, foreign=[0.5] * 18)
        self.assertEqual((result.rounds, result.rounds_dropped), (2, 4))
        self.assertEqual(result.foreign, [0.5, 0.5])

    def test_warm_up_does_not_count(self):
        result = compare([Fake("pocketgpt q4", 99, 1), Fake("peer", 99, 1)], 1, warm_up=1)
        self.assertEqual(result.ratios("decode at 16"), {"peer": [1]})

    def test_a_peer_that_fails_is_left_out(self):
        subjects = [Fake("pocketgpt q4", 1, 1), Fake("a", 1, None), Unable("b"), Fake("c", 1, 2)]
        result = compare(subjects, 2)
        self.assertEqual(result.failed, {"a": "broken", "b": "not for this CPU"})
        self.assertEqual(list(result.figures["decode at 16"]), ["pocketgpt q4", "c"])

    def test_ours_must_not_fail(self):
        with self.assertRaisesRegex(Failed, "broken"):
            compare([Fake("pocketgpt q4", None), Fake("peer", 1)], 1)
        with self.assertRaisesRegex(Failed, "not for this CPU"):
            compare([Unable("pocketgpt q4"), Fake("peer", 1)], 1)


class Results(unittest.TestCase):
    def result(self):
        subjects = [Fake("pocketgpt q4", 10, 30), Fake("slow", 5, 10), Fake("fast", 8, 20)]
        return compare(subjects, 2)

    def test_they_come_back_from_their_files(self):
        result = self.result()
        with tempfile.TemporaryDirectory() as folder:
            result.save(Path(folder))
            self.assertEqual(results.load_all(Path(folder), ["decode"]), [result])

    def test_the_best_peer_is_the_one_that_comes_closest(self):
        self.assertEqual(self.result().best_peer("decode at 16"), "fast")

    def test_the_page_tells_all(self):
        page = report.page("title", {"CPU": "some"}, [self.result()], report.Plots("ratios.svg", None))
        self.assertIn("(ratios.svg)", page)
        self.assertIn("| pocketgpt q4: 20.0 | fast: 14.0 | 1.38 (1.25–1.50) |", page)
        self.assertIn("| slow | 7.50 | 2.50 (2.00–3.00) |", page)
        self.assertIn("2 rounds; other programs took up to 0% of the CPUs", page)
        self.assertIn("| pocketgpt q4, slow, fast | version 1 |", page)


class Parts(unittest.TestCase):
    def test_speeds_are_named(self):
        work = Speeds(depths=(16, 512), prefill=512)
        expected = {"decode at 16": 1.0, "decode at 512": 2.0, "prefill 512": 3.0}
        self.assertEqual(work.figures([1.0, 2.0], 3.0), expected)

    def test_ids_are_those_of_our_bench(self):
        # (1 · a + 1) >> 33 of the generator in `pocketgpt bench`, and what follows.
        first = (6_364_136_223_846_793_005 + 1) >> 33
        self.assertEqual(random_ids(1, 2**31), [first % 2**31])
        ids = random_ids(1000, 50257)
        self.assertTrue(all(0 <= id_ < 50257 for id_ in ids))
        self.assertGreater(len(set(ids)), 900)

    def test_file_names(self):
        self.assertEqual(cpu.slug("Intel(R) Core(TM) i7-1165G7 @ 2.80GHz"), "intel-core-i7-1165g7-2-80ghz")

    def test_unknown_parts_are_refused(self):
        with self.assertRaises(SystemExit), contextlib.redirect_stderr(io.StringIO()) as told:
            options.parse(["--only", "decode,speed"])
        self.assertIn("speed: no part", told.getvalue())

    def test_parts_keep_their_order(self):
        self.assertEqual(options.parse(["--only", "cold,decode"]).parts, ("decode", "cold"))


class Meter(unittest.TestCase):
    def foreign(self, seconds, busy, own):
        moments = [(0.0, 0.0, 0.0), (seconds, busy, own)]
        with (
            mock.patch.object(cpu.CpuMeter, "now", side_effect=moments),
            mock.patch.object(cpu.os, "cpu_count", return_value=2),
        ):
            return cpu.CpuMeter().foreign_share()

    def test_others_are_what_is_not_ours(self):
        self.assertAlmostEqual(self.foreign(10, 15, 10), 0.25, places=2)
        self.assertEqual(self.foreign(10, 10, 10), 0)

    def test_a_tick_in_a_short_time_is_nobody(self):
        self.assertEqual(self.foreign(0.02, 0.03, 0.01), 0)


class Sources(unittest.TestCase):
    def test_a_dangling_git_and_odd_dates_are_mended(self):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            (root / "vendor").mkdir()
            (root / "vendor" / ".git").write_text("gitdir: ../nowhere")
            (root / ".git").mkdir()
            (root / ".git" / "config").touch()
            (root / "dangling").symlink_to("nowhere")
            source = root / "vendor" / "file.c"
            source.touch()
            environment.os.utime(source, (0, 0))
            environment.mend(root)
            self.assertEqual(sorted(path.name for path in root.rglob("*")), ["dangling", "file.c", "vendor"])
            self.assertGreater(source.stat().st_mtime, 0)

    def test_a_tile_configuration_is_stored_before_it_is_loaded(self):
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "ggml" / "ggml-cpu" / "amx" / "mmq.cpp"
            source.parent.mkdir(parents=True)
            source.write_text("tc.palette_id = 1;\n    _tile_loadconfig(&tc);\n")
            environment.mend(Path(folder))
            self.assertRegex(source.read_text(), r'asm volatile\(.*"memory"\); _tile_loadconfig\(&tc\);')
            source.write_text("_tile_loadconfig(&config);")
            with self.assertRaises(SystemExit):
                environment.mend(Path(folder))


class Protocol(unittest.TestCase):
    def test_a_worker_answers_line_by_line(self):
        from peers.workers import protocol

        class Model(protocol.StepModel):
            vocab_size = 100

            def clear(self):
                self.fed = []

            def feed(self, ids):
                self.fed += ids

            def last_logits(self):
                return [float(self.fed[-1]), float(len(self.fed))]

        model = Model()
        model.clear()
        request = {"work": "decode", "depths": [2, 6, 7], "tokens": 3}
        seconds = protocol.measure(model, request)["token_seconds"]
        self.assertEqual([len(run) for run in seconds], [3, 3, 3])
        # 7 is less than what the cache holds after 6 and 3 more, so it begins anew.
        self.assertEqual(model.fed, random_ids(10, 100))
        self.assertGreaterEqual(protocol.measure(model, {"work": "prefill", "tokens": 5})["prefill_seconds"], 0)
        answer = protocol.measure(model, {"work": "logits", "ids": [1, 2, 3]})
        self.assertEqual(json.loads(json.dumps(answer)), {"logits": [3.0, 3.0]})


class Quantization(unittest.TestCase):
    REPORT = {
        "perplexity_ratio": 1.01,
        "mean_kl_divergence": 0.008,
        "mean_kl_divergence_stderr": 0.0001,
        "p99_kl_divergence": 0.04,
        "top1_agreement": 0.925,
    }

    def file(self, name, ours, bits, kl):
        return loss.parsed(name, ours, "", bits, {**self.REPORT, "mean_kl_divergence": kl})

    def test_bits_are_those_of_matrices(self):
        tensors = [
            ("token_embd.weight", (256, 100), 256 * 100),
            ("blk.0.ffn_up.weight", (256, 300), 256 * 300 // 2),
            ("position_embd.weight", (256, 512), 256 * 512 * 4),
            ("blk.0.ffn_up.bias", (300,), 1200),
        ]
        self.assertEqual(loss.bits_per_weight(tensors), 8 * (25600 + 38400) / (25600 + 76800))

    def test_the_curve_goes_through_the_best(self):
        peers = [
            self.file("a", False, 8, 0.0001),
            self.file("b", False, 4, 0.01),
            self.file("worse than b", False, 5, 0.02),
        ]
        self.assertAlmostEqual(loss.curve(peers, 4), 0.01)
        self.assertAlmostEqual(loss.curve(peers, 8), 0.0001)
        self.assertAlmostEqual(loss.curve(peers, 6), 0.001)
        self.assertIsNone(loss.curve(peers, 3.9))
        self.assertIsNone(loss.curve([], 4))

    def test_ours_stand_against_the_curve(self):
        files = [self.file("A", False, 8, 0.0001), self.file("B", False, 4, 0.01)]
        losses = loss.Losses("model", "text", "text", files=[*files, self.file("q4", True, 6, 0.0005)])
        rows = loss.table(losses).splitlines()[2:]
        self.assertEqual([row.split(" | ")[0] for row in rows], ["| A", "| **q4**", "| B"])
        self.assertTrue(rows[1].endswith("| 6.000 | 1.01000 | 0.000500 | 0.0400 | 92.50 % | 0.50 |"), rows[1])
        self.assertTrue(rows[0].endswith("|  |"))

    def test_the_page_tells_of_all_days_and_commits(self):
        files = [self.file("q4", True, 5, 0.001), self.file("q8", True, 8, 0.0001), self.file("Q8_0", False, 8, 0.0002)]
        files[0].date, files[1].date = "2026-11-29", "2026-11-28"
        files[0].commit, files[1].commit = "commit b", "commit a"
        about = loss_page.about(loss.Losses("model", "text", "text", 10, 39.3, {"llama-cpp-python": "1"}, files))
        self.assertEqual(about["measured"], "2026-11-28 to 2026-11-29")
        self.assertEqual(about["pocketgpt"], "commit a, commit b")
        self.assertEqual(about["peers"], "llama-cpp-python 1")
        self.assertEqual(loss_page.spans({"", "one"}), "one")

    def test_figures_survive_their_file(self):
        losses = loss.Losses("model", "text", "text", files=[self.file("q4", True, 5, 0.001)])
        with tempfile.TemporaryDirectory() as folder:
            losses.write(Path(folder) / "loss.json")
            self.assertEqual(loss.Losses.read(Path(folder) / "loss.json"), losses)

    def test_unknown_formats_are_refused(self):
        with contextlib.redirect_stderr(io.StringIO()) as text, self.assertRaises(SystemExit):
            loss.parse(["--only", "Q9_X"])
        self.assertIn("Q9_X: not measured; there are q8", text.getvalue())

    def test_texts_share_no_file(self):
        texts = [f"file {i} " * 50 for i in range(40)]
        parts = train.split(texts, 10)
        self.assertEqual(sorted(sum(parts.values(), [])), sorted(texts))
        self.assertEqual(parts["calibration"], [texts[i] for i in (5, 15, 25, 35)])
        self.assertEqual(parts["valid"], [texts[i] for i in (9, 19, 29, 39)])

    def test_a_text_is_taken_from_all_files(self):
        text = train.joined(["a" * 10, "b" * 1000, "c" * 1000], 500)
        documents = text.strip().split(f"\n{train.END}\n")
        self.assertEqual([len(part) for part in documents], [10, 245, 245])
        self.assertEqual(train.joined(["a\n", "b"]), f"a\n{train.END}\nb\n")

    def test_unigrams_of_even_counts_are_as_perplexing_as_their_number(self):
        try:
            import numpy as np
        except ImportError:
            self.skipTest("without numpy")
        ids = np.arange(64).repeat(50)
        self.assertAlmostEqual(train.unigram_perplexity(ids, ids[::7], 64), 64, places=6)

    def test_documentation_stands_in_the_order_of_its_file(self):
        source = '"""A."""\nclass B:\n    """B.\n\n    More."""\n    def c(self):\n        return "no"\ndef d():\n    """D."""\n'
        self.assertEqual(docstrings.docstrings(source), "A.\n\nB.\n\nMore.\n\nD.")
        self.assertEqual(docstrings.docstrings("print 1"), "")


if __name__ == "__main__":
    unittest.main()
