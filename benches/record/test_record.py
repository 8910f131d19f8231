"""Tests of the scripts in this folder: python3 -m unittest discover -s benches/record"""

import contextlib
import io
import subprocess
import tempfile
import unittest
from pathlib import Path

import compare
import programs
import record


def speeds(prefill, decode, **more):
    """JSON of a run."""
    run = {"cpu": "Some CPU (R) v2", "isa": "avx2", "threads": 2, "kv": "q8", "prefill_tokens": 128}
    return run | {"prefill_tokens_per_second": prefill, "decode_tokens_per_second": decode} | more


class Compare(unittest.TestCase):
    def test_sides_take_turns(self):
        calls = []

        def run(side, model):
            calls.append((model, side))
            return len(calls)

        with contextlib.redirect_stderr(io.StringIO()):
            runs = compare.measure(["base", "head"], ["m", "n"], 2, run)
        in_turn = ["base", "head", "base", "head", "head", "base", "head", "base"]
        self.assertEqual([side for _, side in calls], in_turn)
        self.assertEqual(runs["m"], {"base": [1, 6], "head": [2, 5]})
        self.assertEqual(runs["n"], {"base": [3, 8], "head": [4, 7]})

    def test_the_ratio_within_rounds_decides(self):
        # The machine halves its speed on the way: medians alone would be far apart.
        base = [100, 100, 100, 100, 50, 50, 50]
        same = compare.summary(base, [101, 99, 100, 100, 50, 50, 51], 0.97)
        self.assertEqual((same["ratio"], same["slower"], same["unsure"]), (1, False, False))
        slow = compare.summary(base, [90, 91, 89, 90, 45, 45, 46], 0.97)
        self.assertAlmostEqual(slow["ratio"], 0.9)
        self.assertTrue(slow["slower"] and not slow["unsure"])
        noise = compare.summary([100] * 7, [80, 120, 80, 120, 95, 95, 95], 0.97)
        self.assertTrue(noise["slower"] and noise["unsure"])
        self.assertEqual(noise["ratio_range"], [0.8, 1.2])

    def test_the_table_names_what_is_slower(self):
        fast = compare.summary([10] * 7, [11] * 7, 0.97)
        slow = compare.summary([10] * 7, [9] * 7, 0.97)
        results = [{"model": "bundled", "metric": "decode", **side} for side in (fast, slow)]
        _, first, second = compare.table(results).splitlines()
        self.assertIn("1.100", first)
        self.assertNotIn("slower", first)
        self.assertTrue(second.endswith("slower"))

    def test_wrong_usage_is_2(self):
        for arguments in ([], ["a", "--rounds", "3"], ["a", "--threshold", "2"], ["a", "--models", "gpt3"]):
            with self.assertRaises(SystemExit) as ended, contextlib.redirect_stderr(io.StringIO()):
                compare.main(arguments)
            self.assertEqual(ended.exception.code, 2)


class Record(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name) / "results"

    def keep(self, commit, *runs, model="bundled"):
        line = record.entry(commit, model, runs, today="2026-01-02")
        return record.append(self.folder, line)

    def test_medians_are_kept_per_cpu(self):
        path = self.keep("a" * 40, speeds(1, 10), speeds(3, 30), speeds(2, 1000, roofline_fraction=0.81234567))
        self.assertEqual(path.name, "some-cpu-r-v2.jsonl")
        ((line,),) = record.read(self.folder).values()
        self.assertEqual((line["prefill_tokens_per_second"], line["decode_tokens_per_second"]), (2, 30))
        self.assertEqual((line["commit"], line["runs"], line["date"]), ("a" * 40, 3, "2026-01-02"))
        self.assertEqual(line["roofline_fraction"], 0.81235)
        # The run of an old commit does not have it.
        self.assertNotIn("peak_rss_bytes", line)

    def test_a_slower_commit_is_seen(self):
        self.keep("a" * 40, speeds(100, 50))
        self.keep("b" * 40, speeds(120, 50))
        # Another number of threads, another model: nothing to compare with.
        self.keep("b" * 40, speeds(10, 5, threads=1))
        self.keep("b" * 40, speeds(10, 5), model="gpt2-q4")
        text, slower = record.show(record.read(self.folder), 0.9)
        self.assertEqual(slower, [])
        self.assertIn("1.200", text)
        self.keep("c" * 40, speeds(121, 40))
        text, slower = record.show(record.read(self.folder), 0.9)
        self.assertEqual(slower, ["some-cpu-r-v2: bundled: cccccccccc is slower than the commit before"])
        self.assertEqual(text.count("SLOWER"), 1)
        # What was slow once and is not any more is told, and no error.
        self.keep("d" * 40, speeds(121, 50))
        text, slower = record.show(record.read(self.folder), 0.9)
        self.assertEqual((text.count("SLOWER"), slower), (1, []))

    def test_damaged_files_are_named(self):
        path = self.keep("a" * 40, speeds(1, 1))
        with path.open("a") as file:
            file.write("oops\n")
        with self.assertRaisesRegex(programs.Failed, "line 2 is no JSON"):
            record.read(self.folder)
        with self.assertRaisesRegex(programs.Failed, "no such file"):
            record.read(self.folder, "another")

    def test_what_is_kept_here_can_be_shown(self):
        record.show(record.read(record.RESULTS), 0.9)


class Programs(unittest.TestCase):
    def test_the_last_line_of_an_error_is_told(self):
        with self.assertRaisesRegex(programs.Failed, "exit code 3: second$"):
            programs.call(["sh", "-c", "echo first >&2; echo second >&2; exit 3"])
        with self.assertRaisesRegex(programs.Failed, "no-such-program: No such file"):
            programs.call(["no-such-program"])
        self.assertEqual(programs.call(["echo", 1]), "1\n")

    def test_options_follow_what_a_commit_understands(self):
        for text, expected in (("--no-baseline", ["--no-baseline"]), ("", [])):
            with tempfile.TemporaryDirectory() as folder:
                script = Path(folder) / "pocketgpt"
                script.write_text('#!/bin/sh\nfor a; do out="$out\\"$a\\","; done; echo "[${out%,}]"\n')
                script.chmod(0o755)
                built = programs.Programs(script, script, text)
                arguments = ["bench", "--json", "-n", "3"]
                self.assertEqual(built.bench(None, ["-n", 3]), arguments + expected)
                self.assertEqual(built.bench("x", ["-n", 3]), [*arguments, "-m", "x", *expected])

    def test_folders_and_worktrees_are_gone_afterwards(self):
        repository = programs.REPOSITORY
        git = ["git", "-C", repository, "rev-parse", "HEAD"]
        if subprocess.run(git, capture_output=True, check=False).returncode != 0:
            self.skipTest("not a clone")
        head = programs.commit_id("HEAD")
        with programs.temporary_folder() as folder:
            with programs.sources(head, folder) as tree:
                self.assertTrue((tree / "Cargo.toml").exists())
            self.assertFalse(tree.exists())
            with programs.sources(programs.WORKING_TREE, folder) as tree:
                self.assertEqual(tree, repository)
        self.assertFalse(folder.exists())
        self.assertNotIn(str(folder), programs.call(["git", "worktree", "list"]))
        with self.assertRaisesRegex(programs.Failed, "there is no such commit"):
            programs.commit_id("no-such-commit")


if __name__ == "__main__":
    unittest.main()
