"""Writes a second text to measure on: `benches/peers/docstrings -o DIR`

What Python's standard library says of itself, its documentation strings: English of another kind than
the stories that the bundled model was trained and is calibrated with, on any machine that has Python. In the
folder lie `valid.txt` and `calibration.txt`, of different files.
"""

import argparse
import ast
import sysconfig
from pathlib import Path

from .train import joined, sources

# Some 25,000 tokens of the bundled model's tokenizer.
TEXT_CHARACTERS = 60_000
# Of files that say more than a few words each, so that contexts become long.
LEAST_CHARACTERS = 3_000


def docstrings(source: str) -> str:
    """All of a file, in its order; nothing of a file that is for another Python."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return ""
    with_one = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = [node for node in ast.walk(tree) if isinstance(node, with_one)]
    found.sort(key=lambda node: getattr(node, "lineno", 0))
    return "\n\n".join(filter(None, (ast.get_docstring(node) for node in found)))


def main() -> None:
    parser = argparse.ArgumentParser(prog="benches/peers/docstrings", description=__doc__.partition("\n")[0])
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    folder = parser.parse_args().output
    folder.mkdir(parents=True, exist_ok=True)
    library = Path(sysconfig.get_path("stdlib"))
    files = (path.read_text(encoding="utf-8", errors="ignore") for path in sources(library))
    texts = [text for text in map(docstrings, files) if len(text) > LEAST_CHARACTERS]
    # Every other file: both have something of everything.
    for name, part in (("calibration", texts[::2]), ("valid", texts[1::2])):
        (folder / f"{name}.txt").write_text(joined(part, TEXT_CHARACTERS), encoding="utf-8")


if __name__ == "__main__":
    main()
