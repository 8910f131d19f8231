"""The comparison itself, once everything is installed: `python -m peers`, called by `run`."""

import json
import os
import signal
import sys
from pathlib import Path

from . import cpu, machine, options, plot, programs, results
from . import report as page
from .environment import Environment
from .models import Models
from .parts import Workshop
from .rounds import Limits, compare, note
from .subjects import Failed

# In the folder of results: machine and model.
ABOUT = "about"


def measure(chosen: options.Options, environment: Environment) -> None:
    """Each comparison is saved as soon as it is done."""
    pocketgpt, quantize = programs.find(chosen.bin_dir)
    models = Models(chosen.folder / "models", quantize, chosen.checkpoint)
    workshop = Workshop(chosen, environment, models, pocketgpt, quantize)
    limits = Limits(chosen.rounds, chosen.max_foreign)
    chosen.results.mkdir(parents=True, exist_ok=True)
    about = machine.description(built=chosen.bin_dir is None) | {"model": models.name}
    (chosen.results / ABOUT).write_text(json.dumps(about, indent=1) + "\n")
    for comparison in workshop.comparisons():
        if chosen.match in comparison.name:
            compare(comparison, limits).save(chosen.results)


def report(chosen: options.Options) -> Path:
    """Page and plot of all results in the folder, of this run and of earlier ones."""
    found = results.load_all(chosen.results, list(options.PARTS))
    if not found:
        sys.exit(f"{chosen.results}: no results; run without --report-only first")
    last = max(result.date for result in found)[:10]
    stem = f"{cpu.slug(cpu.name())}-{last}"
    chosen.output.mkdir(parents=True, exist_ok=True)
    plots = page.Plots(
        ratios=plot.save(plot.draw_ratios(found), chosen.output / f"{stem}-ratios.svg"),
        speeds=plot.save(plot.draw_speeds(found), chosen.output / f"{stem}.svg"),
    )
    target = chosen.output / f"{stem}.md"
    title = f"pocketgpt and others on {cpu.name()}, {last}"
    about = json.loads((chosen.results / ABOUT).read_text())
    target.write_text(page.page(title, about, found, plots))
    return target


def main() -> int:
    chosen = options.parse()
    llama_avx2 = os.environ.get("PEERS_LLAMA_AVX2")
    environment = Environment(Path(sys.executable), Path(llama_avx2) if llama_avx2 else None)
    try:
        if not chosen.report_only:
            measure(chosen, environment)
        print(report(chosen))
    except Failed as error:
        note(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        note("stopped: what is done is kept; --report-only makes a page of it")
        return 128 + signal.SIGINT
    return 0


if __name__ == "__main__":
    sys.exit(main())
