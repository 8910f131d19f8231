#!/usr/bin/env python3
"""Chooses the corpus of `fuzz/inputs` out of one that was fuzzed for long:

    ci/fuzz.sh 1                     # builds the targets
    ci/fuzz_inputs.py BIN CORPUS [bytes for each target, 60000 without] [target …]

BIN is the folder with the targets and `seeds` (`target/fuzz/…/release`), CORPUS what `FUZZ_CORPUS` was.
Of all inputs those are taken that reach most edges per byte which neither the seeds nor what was
taken before reach, and in what room is left those with most features per byte: edges with how often
they were passed, and comparisons.
"""

import array
import hashlib
import heapq
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGETS = ["open_and_run", "checkpoint", "tokenizer", "sampling", "saved_session"]
# An input costs its bytes, and a file.
FILE_BYTES = 64


def features_of_all(binary, folders, work):
    """Runs each input once: its features, and how many edges the target has."""
    control, out = work / "control", work / "merged"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    control.unlink(missing_ok=True)
    # The other kind of merge writes only those features that no earlier input has.
    command = [binary, "-set_cover_merge=1", f"-merge_control_file={control}", "-max_len=65536",
               "-timeout=300", "-rss_limit_mb=4096", out, *folders]
    environment = dict(os.environ, ASAN_OPTIONS="detect_odr_violation=0:allocator_may_return_null=1:detect_leaks=0")
    log = subprocess.run(command, check=True, env=environment, stderr=subprocess.PIPE).stderr.decode(errors="replace")
    edges = int(re.search(r"\((\d+) inline 8-bit counters\)", log)[1])
    lines = control.read_text(errors="replace").splitlines()
    names, features = lines[2:2 + int(lines[0])], {}
    for line in lines:
        if line.startswith("FT "):
            _, number, *rest = line.split()
            features[pathlib.Path(names[int(number)])] = array.array("I", map(int, rest))
    # What is made once for all inputs is counted for the first, which is the shortest.
    del features[pathlib.Path(names[0])]
    return features, edges


def take(chosen, left, covered, room):
    """Moves inputs from `left` to `chosen`: always the one with most that is new for its bytes."""

    def entry(path):
        size = path.stat().st_size
        return -sum(f not in covered for f in left[path]) / (size + FILE_BYTES), size, path

    # What an input adds only ever gets less, so one that is still the best with its new number is it.
    heap = [entry(path) for path in left]
    heapq.heapify(heap)
    while heap:
        _, size, path = heapq.heappop(heap)
        if size > room:
            continue
        now = entry(path)
        if now[0] == 0:
            continue
        if heap and now > heap[0]:
            heapq.heappush(heap, now)
            continue
        covered.update(left[path])
        chosen.append(path)
        room -= size
    return room


def main():
    binaries, corpus = map(pathlib.Path, sys.argv[1:3])
    budget = int(sys.argv[3]) if len(sys.argv) > 3 else 60_000
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        subprocess.run([binaries / "seeds", work / "seeds"], check=True)
        for target in sys.argv[4:] or TARGETS:
            known = [work / "seeds" / target, ROOT / "fuzz/regressions" / target]
            known = [folder for folder in known if folder.is_dir() and any(folder.iterdir())]
            features, count = features_of_all(binaries / target, [*known, corpus / target], work)
            edges = {path: array.array("I", {f // 8 for f in found if f < 8 * count})
                     for path, found in features.items()}
            seeds = [path for path in features if path.parent in known]
            chosen, of_seeds = [], set().union(*(edges[path] for path in seeds))
            room = take(chosen, {path: edges[path] for path in features}, set(of_seeds), budget)
            for_edges, of_chosen = len(chosen), of_seeds.union(*(edges[path] for path in chosen))
            seen = set().union(*(features[path] for path in seeds + chosen))
            room = take(chosen, features, seen, room)
            folder = ROOT / "fuzz/inputs" / target
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            for path in chosen:
                data = path.read_bytes()
                (folder / hashlib.sha1(data).hexdigest()[:16]).write_bytes(data)
            of_all = set().union(*edges.values())
            print(f"{target}: {len(chosen)} inputs ({for_edges} for edges), {budget - room} bytes: "
                  f"{len(of_seeds)} edges of the seeds, {len(of_chosen)} with these, "
                  f"{len(of_all)} with all {len(features)}", flush=True)


main()
