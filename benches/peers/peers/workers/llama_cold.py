"""llama.cpp from nothing to the first token: `python -m peers.workers.llama_cold FILE --threads N IDS…`

Prints one JSON object as soon as the token is known, with the seconds since everything was imported.
"""

import json
import os
import sys
import time

import numpy as np

from .llama import Llama, arguments


def main() -> None:
    split = sys.argv.index("--ids")
    ids = [int(id_) for id_ in sys.argv[split + 1 :]]
    del sys.argv[split:]
    args = arguments()
    start = time.perf_counter()
    model = Llama(args)
    model.feed(ids)
    token = int(np.argmax(model.last_logits_array()))
    seconds = time.perf_counter() - start
    print(json.dumps({"token": token, "seconds_after_imports": seconds}), flush=True)
    # Tearing down is not part of it.
    os._exit(0)


if __name__ == "__main__":
    main()
