#!/bin/sh
# Builds the two programs as users have them and runs ci/faults.py with them.
#
#     ci/faults.sh [number of kills, 40 without]
set -eu
cd "$(dirname "$0")/.."
[ "$(uname -s)" = Linux ] || { echo "faults: only on Linux, skipped"; exit 0; }
target=${CARGO_TARGET_DIR:-$PWD/target}
cargo build --release --quiet -p pocketgpt-quantize
cargo build --release --quiet -p pocketgpt
exec python3 ci/faults.py "$target/release/pocketgpt" "$target/release/pocketgpt-quantize" "${1:-40}"
