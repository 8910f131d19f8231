#!/bin/sh
# The runtime as a WebAssembly module, in Node: the hashes of logits in
# tests/data/golden/hashes.json, and the text that the command line writes here. Missing tools come
# from rustup or Debian, which takes root. Set CARGO_TARGET_DIR to keep the build elsewhere.
set -eu
cd "$(dirname "$0")/.."

. ci/golden-files.sh
. ci/packages.sh
. ci/rust-target.sh
target=${CARGO_TARGET_DIR:-$PWD/target}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if ! command -v node >/dev/null; then
    install_packages nodejs
fi
golden_files "$work"
cargo build --quiet --release -p pocketgpt
"$target/release/pocketgpt" generate --kv q8 --quiet --seed 1 -n 40 "Once upon a time" >"$work/text"

rust_target wasm32-unknown-unknown std,panic_abort
cd examples/wasm
cargo fmt --check
# shellcheck disable=SC2086 # no argument where it is empty
cargo build --quiet --release --target wasm32-unknown-unknown --target-dir "$target/wasm" $BUILD_STD
module=$target/wasm/wasm32-unknown-unknown/release/pocketgpt_wasm.wasm
node golden.mjs "$module" "$work"
node generate.mjs "$module" "$work/model-q8.pgpt" "Once upon a time" 1 40 | cmp - "$work/text"
echo "wasm: module of $(wc -c <"$module") bytes, node $(node --version)"
