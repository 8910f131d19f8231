"""The page: tables of everything that was measured, and how."""

import statistics
from dataclasses import dataclass

from .results import Result, summarized

HOW = """\
In each round every subject does the same work, one after the other (ABAB…), so that all of them see the
same machine. Figures are medians over the rounds; a ratio is ours against the peer's *within a round*:
the median of the ratios, and in brackets the smallest and the largest. Above 1, ours is better. Absolute
figures drift from hour to hour, ratios much less.

All feed the same token ids, and work a little before the clock runs. Peers stay loaded in a process of
their own and sleep while others work; ours is a run of `pocketgpt bench` each time. A round is measured
again if other programs took more of the CPUs than allowed.
"""

TITLES = {
    "agreement": "Agreement",
    "decode": "Decoding",
    "prefill": "Prefill",
    "avx2": "AVX2 alone",
    "busy": "Busy CPUs",
    "cold": "Cold start",
    "memory": "Memory",
    "others": "Other runtimes",
    "scaling": "From 124M to 1.5B parameters",
}

NOTES = {
    "agreement": "Logits after 48 tokens against those of `pocketgpt` in f32. A subject far from 1 "
    "would run another model. 4 bits lose most, and more on random weights than on trained ones.",
    "decode": "Tokens made one by one after the given number of tokens.",
    "prefill": "A prompt of 512 tokens, logits for the last only.",
    "avx2": "Ours with `--isa avx2`, llama.cpp built for AVX2 and nothing newer.",
    "busy": "As many endless loops as there are CPUs run beside it.",
    "cold": "A prompt of 16 tokens; the file is in the page cache. The peer's time is taken as a whole, "
    "and without the start of Python and its imports: that is the figure to compare with. It tears "
    "nothing down, ours runs to its end.",
    "memory": "Peak memory while 128 tokens are decoded. What Python and its imports take is not counted.",
    "others": "Three rounds.",
    "scaling": "Random models; `pocketgpt` alone. At the memory wall, time follows bytes.",
}


def number(value: float, unit: str) -> str:
    if not unit:
        return f"{value:.4f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def ratio(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}–{max(values):.2f})"


def row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


def table(head: list[str], rows: list[list[str]]) -> str:
    return row(head) + "|---" * len(head) + "|\n" + "".join(map(row, rows)) + "\n"


def with_unit(name: str, unit: str) -> str:
    return f"{name}, {unit}" if unit else name


def comparison_table(result: Result) -> str:
    """A row for each subject; for each figure its median and, for peers, the ratio."""
    has_ratios = result.part not in ("agreement", "scaling", "memory")
    head, columns = ["subject"], []
    for name, by_subject in result.figures.items():
        medians = result.medians(name)
        head.append(with_unit(name, result.unit))
        columns.append({subject: number(medians[subject], result.unit) for subject in by_subject})
        if has_ratios:
            head.append("ours / peer")
            columns.append({peer: ratio(values) for peer, values in result.ratios(name).items()})
    subjects = list(next(iter(result.figures.values())))
    rows = [[subject, *(column.get(subject, "") for column in columns)] for subject in subjects]
    return table(head, rows)


def scaling_table(result: Result) -> str:
    rows = []
    for name in result.figures:
        medians = result.medians(name)
        for subject, milliseconds in medians.items():
            size = result.settings[subject]["weight_bytes_per_token"]
            speed = size / milliseconds / 1e6
            rows.append([subject, f"{size / 1e6:.1f}", number(milliseconds, "ms"), f"{speed:.2f}"])
    return table(["model", "weights read for a token, MB", "ms a token", "GB/s"], rows)


def rounds_line(result: Result) -> str:
    dropped = f", {result.rounds_dropped} measured again" if result.rounds_dropped else ""
    share = max(result.foreign)
    plural = "s" * (result.rounds != 1)
    failed = "".join(f" Left out: {name} ({why})." for name, why in result.failed.items())
    return (
        f"{result.date[:16].replace('T', ' ')}, {result.rounds} round{plural}{dropped}; other programs "
        f"took up to {share:.0%} of the CPUs.{failed}\n\n"
    )


def summary(results: list[Result], plot: str | None) -> str:
    """Ours against the peer that comes closest, for each figure."""
    rows = []
    for result, name, peer in summarized(results):
        medians = result.medians(name)
        ours = next(iter(medians))
        ours_text = f"{ours}: {number(medians[ours], result.unit)}"
        peer_text = f"{peer}: {number(medians[peer], result.unit)}"
        what = with_unit(f"{result.name}: {name}", result.unit)
        rows.append([what, ours_text, peer_text, ratio(result.ratios(name)[peer])])
    if not rows:
        return ""
    out = "## Summary\n\n" + table(["what", "ours", "best peer", "ours / peer"], rows)
    return out + (f"![Ours over the best peer]({plot})\n\n" if plot else "")


def settings(results: list[Result]) -> str:
    """What each subject told of itself; subjects that told the same share a row."""
    seen: dict[str, dict[str, None]] = {}
    for result in results:
        for subject, values in result.settings.items():
            told = {key: value for key, value in values.items() if "bytes" not in key}
            text = ", ".join(f"{key} {value}" for key, value in told.items())
            if text:
                seen.setdefault(text, {})[subject] = None
    rows = [[", ".join(subjects), text] for text, subjects in seen.items()]
    return "## Settings\n\n" + table(["subjects", "settings"], rows) + files(results)


def files(results: list[Result]) -> str:
    sizes = {}
    for result in results:
        for subject, values in result.settings.items():
            if "file_bytes" in values:
                sizes[subject] = values["file_bytes"]
    by_size: dict[int, list[str]] = {}
    for subject, size in sizes.items():
        by_size.setdefault(size, []).append(subject)
    rows = [[", ".join(subjects), f"{size / 1e6:.1f}"] for size, subjects in sorted(by_size.items())]
    return table(["subjects", "file, MB"], rows)


@dataclass
class Plots:
    """Files beside the page."""

    ratios: str | None
    speeds: str | None


def page(title: str, about: dict[str, str], results: list[Result], plots: Plots) -> str:
    out = f"# {title}\n\nMade by `benches/peers/run`; how, see `benches/peers/README.md`.\n\n"
    out += table(["", ""], [[key, value] for key, value in about.items()])
    out += HOW + "\n" + summary(results, plots.ratios)
    if plots.speeds:
        out += f"## All subjects\n\n![What each subject reached]({plots.speeds})\n\n"
    part = None
    for result in results:
        if result.part != part:
            part = result.part
            out += f"## {TITLES[part]}\n\n{NOTES[part]}\n\n"
        body = scaling_table(result) if part == "scaling" else comparison_table(result)
        out += f"### {result.name[0].upper()}{result.name[1:]}\n\n{body}{rounds_line(result)}"
    return (out + settings(results)).rstrip() + "\n"
