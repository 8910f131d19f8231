#!/usr/bin/env python3
"""Keeps the speed of commits, one file per CPU, so that one that is slower is seen.

`add` builds a commit in a folder of its own, measures it, and adds a line per model to
`results/CPU.jsonl`; `show` prints what is there, and `check` fails if the newest commit is slower
than the one before.

Figures of different days are compared here, so only large differences mean anything; `compare.py`
measures two commits in turn, and tells small ones.

Exit codes: 0 done, 1 slower (or the work failed), 2 wrong usage.
"""

import argparse
import datetime
import json
import statistics
import sys
from pathlib import Path

import programs
from programs import Failed, say, short

RESULTS = Path(__file__).resolve().parent / "results"

# What is kept of `pocketgpt bench --json`: what tells results apart, and figures.
SETTINGS = ("cpu", "isa", "threads", "kv", "prefill_tokens")
FIGURES = (
    "prefill_tokens_per_second",
    "prefill_roofline_fraction",
    "decode_tokens_per_second",
    "roofline_fraction",
    "time_to_first_token_seconds",
    "peak_rss_bytes",
    "read_bytes_per_second",
    "int8_macs_per_second",
)
SPEEDS = ("prefill_tokens_per_second", "decode_tokens_per_second")

EXAMPLES = """\
examples:
  record.py add                       the last commit, with the bundled model and GPT-2 124M in q4
  record.py add --commit v0.1.0 --threads 1 --note "fan off"
  record.py show
  record.py check --threshold 0.9
"""


def parse(arguments):
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default, folder = "[default: %(default)s]", "a temporary folder"
    models = f"separated by commas {default}; there are {', '.join(programs.MODELS)}"
    commands = parser.add_subparsers(dest="command", required=True)
    add = commands.add_parser("add", help="measure a commit and keep the result")
    option = add.add_argument
    option("--commit", default="HEAD", help=default)
    option("--models", default=programs.DEFAULT_MODELS, help=models)
    option("--runs", type=int, default=5, help=f"medians of so many runs are kept {default}")
    option("-t", "--threads", type=int, help="threads [default: that of pocketgpt]")
    option("--isa", help="instructions [default: the fastest]")
    option("--note", help="what is special about it")
    option("--folder", help=f"build here, and keep it for the next time [default: {folder}]")
    readers = {
        "show": "print what is kept",
        "check": "fail if the newest commit is slower than the one before",
    }
    for name, what in readers.items():
        option = commands.add_parser(name, help=what).add_argument
        option("--cpu", help="only the file of this name [default: all]")
        option("--threshold", type=float, default=0.9, help=f"slower than it is told {default}")
    options = parser.parse_args(arguments)
    if options.command == "add":
        if options.runs < 1:
            add.error(f"--runs {options.runs}: expected a whole number from 1 on")
        if options.commit == programs.WORKING_TREE:
            add.error(f"--commit {options.commit}: only what is committed is kept")
        try:
            options.models = programs.model_names(options.models)
        except ValueError as error:
            add.error(f"--models {error}")
    return options


def entry(commit, model, runs, note=None, today=None):
    """A line of the record from the JSON of some runs; figures are medians."""
    date = str(today or datetime.date.today())
    line = {"date": date, "commit": commit, "model": model, "runs": len(runs)}
    line |= {key: runs[0].get(key) for key in SETTINGS}
    for key in FIGURES:
        values = [run[key] for run in runs if run.get(key) is not None]
        # Commits before a figure was measured do not have it.
        if values:
            value = float(f"{statistics.median(values):.5g}")
            line[key] = int(value) if value.is_integer() else value
    if note:
        line["note"] = note
    return line


def append(folder, line):
    """Adds a line to the file of its CPU."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{programs.slug(line['cpu'])}.jsonl"
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    return path


def read(folder, cpu=None):
    """All lines, by file, in the order in which they were added."""
    paths = sorted(folder.glob("*.jsonl")) if cpu is None else [folder / f"{cpu}.jsonl"]
    out = {}
    for path in paths:
        if not path.exists():
            raise Failed(f"{path}: no such file; record.py add makes one")
        out[path.stem] = []
        for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            try:
                out[path.stem].append(json.loads(text))
            except json.JSONDecodeError as error:
                raise Failed(f"{path}: line {number} is no JSON: {error.msg}") from error
    return out


def series(lines):
    """Lines that can be compared with each other, oldest first."""
    out = {}
    for line in lines:
        key = (line["model"], *(line.get(setting) for setting in SETTINGS))
        out.setdefault(key, []).append(line)
    return out


def changes(before, line):
    """Speeds over those of the line before."""
    if before is None:
        return {}
    return {key: line[key] / before[key] for key in SPEEDS if key in line and key in before}


ROW = "  {:<10} {:<10} {:>10} {:>7} {:>8} {:>10} {:>7} {:>8}  {}".format
HEADER = ROW("date", "commit", "prefill/s", "change", "of limit", "decode/s", "change", "of limit", "")


def row(line, change, slow):
    """A line of the record for people."""
    cells = [line["date"], short(line["commit"])]
    shares = ("prefill_roofline_fraction", "roofline_fraction")
    for speed, share in zip(SPEEDS, shares, strict=True):
        cells.append(f"{line[speed]:.1f}")
        cells.append(f"{change[speed]:.3f}" if speed in change else "-")
        cells.append(f"{100 * line[share]:.1f} %" if share in line else "-")
    cells.append(" ".join(filter(None, ["SLOWER" if slow else "", line.get("note", "")])))
    return ROW(*cells).rstrip()


def show(records, threshold):
    """The record as text; and of each series whose newest line is slower than the one before, what to say."""
    out, slower = [], []
    for cpu, lines in records.items():
        for (model, _, isa, threads, kv, _), comparable in series(lines).items():
            out += [f"{cpu}: {model}, {isa}, threads: {threads}, kv {kv}", HEADER.rstrip()]
            before, slow = None, False
            for line in comparable:
                change = changes(before, line)
                slow = any(ratio < threshold for ratio in change.values())
                out.append(row(line, change, slow))
                before = line
            if slow:
                slower.append(f"{cpu}: {model}: {short(before['commit'])} is slower than the commit before")
            out.append("")
    return "\n".join(out).rstrip(), slower


def add(options):
    commit = programs.commit_id(options.commit)
    flags = []
    if options.threads is not None:
        flags += ["--threads", options.threads]
    if options.isa is not None:
        flags += ["--isa", options.isa]
    with programs.temporary_folder(options.folder) as folder:
        built = programs.build(commit, folder)
        files = programs.make_models(options.models, built, folder, commit)
        runs = {model: [] for model in options.models}
        for i in range(options.runs):
            for model in options.models:
                runs[model].append(built.bench(files[model], flags))
            say(f"run {i + 1} of {options.runs}")
    for model in options.models:
        path = append(RESULTS, entry(commit, model, runs[model], options.note))
    print(path)


def main(arguments=None):
    options = parse(arguments)
    if options.command == "add":
        add(options)
        return 0
    text, slower = show(read(RESULTS, options.cpu), options.threshold)
    print(text or "nothing is kept yet; record.py add begins")
    if options.command == "check" and slower:
        for line in slower:
            print(f"error: {line}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(programs.ended(main))
