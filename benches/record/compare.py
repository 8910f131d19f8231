#!/usr/bin/env python3
"""Compares the speed of two commits, measured in turn.

Both are built in worktrees and target folders of their own. Then `pocketgpt bench` of the one and
of the other run in turn, so that both see the same machine: what drifts, drifts for both. What
counts is the ratio within each round; its median decides.

Exit codes: 0 not slower than the threshold, 1 slower (or the work failed), 2 wrong usage.
"""

import argparse
import json
import statistics
import sys

import programs
from programs import Failed, say, short

METRICS = (("prefill", "prefill_tokens_per_second"), ("decode", "decode_tokens_per_second"))

EXAMPLES = """\
examples:
  compare.py main                     what is in the working tree against main
  compare.py HEAD~1 HEAD --rounds 15
  compare.py v0.1.0 main --models gpt2-q4,gpt2-q8 --threads 1 --isa avx2
"""


def parse(arguments):
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    option, default = parser.add_argument, "[default: %(default)s]"
    models = f"separated by commas {default}; there are {', '.join(programs.MODELS)}"
    head, folder = "the files as they are", "a temporary folder"
    option("base", help="commit to compare with")
    option("head", nargs="?", default=programs.WORKING_TREE, help=f"[default: {head}]")
    option("--models", default=programs.DEFAULT_MODELS, help=models)
    option("--rounds", type=int, default=9, help=f"at least 7 {default}")
    option("--threshold", type=float, default=0.97, help=f"slower than it fails {default}")
    option("-t", "--threads", type=int, help="threads [default: that of pocketgpt]")
    option("--isa", help="instructions [default: the fastest]")
    option("-p", "--prefill", type=int, default=128, help=f"tokens read together {default}")
    option("-n", "--decode", type=int, default=64, help=f"tokens made one by one {default}")
    option("--json", action="store_true", help="print one JSON object")
    option("--folder", help=f"build here, and keep it for the next time [default: {folder}]")
    options = parser.parse_args(arguments)
    if options.rounds < 7:
        parser.error(f"--rounds {options.rounds}: fewer than 7 say nothing")
    if not 0 < options.threshold <= 1:
        parser.error(f"--threshold {options.threshold}: expected above 0, at most 1")
    try:
        options.models = programs.model_names(options.models)
    except ValueError as error:
        parser.error(f"--models {error}")
    return options


def bench_options(options):
    """Options of `pocketgpt bench`: one round that counts, as the rounds are here."""
    out = ["--repeat", 1, "-p", options.prefill, "-n", options.decode]
    if options.threads is not None:
        out += ["--threads", options.threads]
    if options.isa is not None:
        out += ["--isa", options.isa]
    return out


def measure(sides, models, rounds, run):
    """`rounds` runs of each side and model in turn; who begins changes from round to round, as the
    second one finds the machine as the first one left it.

    `run(side, model)` is a dictionary with the metrics; the result is `[model][side][round]`.
    """
    runs = {model: {side: [] for side in sides} for model in models}
    for i in range(rounds):
        for model in models:
            for side in sides if i % 2 == 0 else reversed(sides):
                runs[model][side].append(run(side, model))
        say(f"round {i + 1} of {rounds}")
    return runs


def summary(base, head, threshold):
    """What the speeds of both sides, round by round, come to."""
    ratios = sorted(b / a for a, b in zip(base, head, strict=True))
    low, ratio, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return {
        "base_tokens_per_second": statistics.median(base),
        "head_tokens_per_second": statistics.median(head),
        "ratio": ratio,
        "ratio_quartiles": [low, high],
        "ratio_range": [ratios[0], ratios[-1]],
        "slower": ratio < threshold,
        # Then more rounds, or a quieter machine, may say something else.
        "unsure": low < threshold < high,
    }


def table(results):
    """The results for people."""
    line = "{:<10} {:<8} {:>10} {:>10} {:>7}   {:<15}  {:<15}  {}".format
    out = [line("model", "", "base", "head", "ratio", "middle half", "range", "")]
    for result in results:
        speeds = [f"{result[f'{side}_tokens_per_second']:.1f}" for side in ("base", "head")]
        spans = [f"{low:.3f} to {high:.3f}" for low, high in (result["ratio_quartiles"], result["ratio_range"])]
        verdict = ", ".join(word for word in ("slower", "unsure") if result[word])
        ratio = f"{result['ratio']:.3f}"
        out.append(line(result["model"], result["metric"], *speeds, ratio, *spans, verdict))
    return "\n".join(text.rstrip() for text in out)


def compare(options, base, head):
    """Builds and measures two commits: the report."""
    commits = {"base": base, "head": head}
    with programs.temporary_folder(options.folder) as folder:
        built = {side: programs.build(commit, folder) for side, commit in commits.items()}
        files = {
            side: programs.make_models(options.models, built[side], folder, commit)
            for side, commit in commits.items()
        }
        flags = bench_options(options)
        run = lambda side, model: built[side].bench(files[side][model], flags)
        runs = measure(list(commits), options.models, options.rounds, run)
    results = []
    for model in options.models:
        for metric, key in METRICS:
            speeds = [[run[key] for run in runs[model][side]] for side in commits]
            results.append({"model": model, "metric": metric, **summary(*speeds, options.threshold)})
    first = runs[options.models[0]]["head"][0]
    machine = {key: first[key] for key in ("cpu", "isa", "threads")}
    task = {"rounds": options.rounds, "threshold": options.threshold}
    return {**commits, **task, **machine, "results": results}


def text(report):
    """The report for people."""
    machine = f"{report['cpu'] or 'unknown CPU'}, {report['isa']}, threads: {report['threads']}"
    sides = f"base {short(report['base'])}, head {short(report['head'])}"
    units = f"tokens per second, medians of {report['rounds']} rounds"
    return f"{machine}\n{sides}; {units}\n\n{table(report['results'])}"


def main(arguments=None):
    options = parse(arguments)
    base, head = (programs.commit_id(name) for name in (options.base, options.head))
    if base == head:
        raise Failed(f"both are {short(base)}; name two commits")
    report = compare(options, base, head)
    print(json.dumps(report) if options.json else text(report))
    return 1 if any(result["slower"] for result in report["results"]) else 0


if __name__ == "__main__":
    sys.exit(programs.ended(main))
