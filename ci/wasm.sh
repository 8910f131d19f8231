#!/bin/sh
# The runtime as a WebAssembly module, in Node: the hashes of logits in
# tests/data/golden/hashes.json, and the text that the command line writes here. Missing tools come
# from rustup or Debian, which takes root. Set CARGO_TARGET_DIR to keep the build elsewhere.
set -eu
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-$PWD/target}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# One by one, as users do: together they would be built with other features, anew.
cargo build --quiet --release -p pocketgpt-quantize
cargo build --quiet --release -p pocketgpt
convert() {
    checkpoint=$1 name=$2
    shift 2
    for to in "$@"; do
        "$target/release/pocketgpt-quantize" convert "$checkpoint" -o "$work/$name $to.pgpt" \
            --to "$to" --quiet $tokenizer
    done
}
tokenizer=
convert examples/model bundled q8 q4 f16 f32
tokenizer=--no-tokenizer
convert tests/fixtures/variants/head-40 head-40 q8 q4
"$target/release/pocketgpt" generate -m "$work/bundled q8.pgpt" --kv q8 --quiet --seed 1 -n 40 \
    "Once upon a time" >"$work/text"

if ! command -v node >/dev/null; then
    apt-get -qq update
    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends nodejs >/dev/null
fi
. ci/rust-target.sh
rust_target wasm32-unknown-unknown std,panic_abort
cd examples/wasm
cargo fmt --check
# shellcheck disable=SC2086 # no argument where it is empty
cargo build --quiet --release --target wasm32-unknown-unknown --target-dir "$target/wasm" $BUILD_STD
module=$target/wasm/wasm32-unknown-unknown/release/pocketgpt_wasm.wasm
node golden.mjs "$module" "$work"
node generate.mjs "$module" "$work/bundled q8.pgpt" "Once upon a time" 1 40 | cmp - "$work/text"
echo "wasm: module of $(wc -c <"$module") bytes, node $(node --version)"
