"""Starts a program of the comparison in the virtual environment with the peers."""

import os
import signal
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.dont_write_bytecode = True


def go_on(python: Path, module: str, **variables: str) -> None:
    """In place of this program, with its arguments."""
    variables = {**os.environ, "PYTHONPATH": str(HERE), "PYTHONDONTWRITEBYTECODE": "1", **variables}
    os.execve(python, [str(python), "-m", module, *sys.argv[1:]], variables)


def start(module: str) -> None:
    """`--venv` or `PEERS_VENV` name an environment that is there; without one it is made."""
    from peers import environment
    from peers.options import REPOSITORY

    arguments = sys.argv[1:]
    venv = os.environ.get("PEERS_VENV")
    if "--venv" in arguments[:-1]:
        venv = arguments[arguments.index("--venv") + 1]
    python = Path(sys.executable)
    if not {"-h", "--help"} & set(arguments):
        try:
            folder = REPOSITORY / "target" / "peers"
            found = environment.prepare(folder, Path(venv) if venv else None, None, avx2=False)
            python = found.python
        except KeyboardInterrupt:
            sys.exit(128 + signal.SIGINT)
    go_on(python, module)
