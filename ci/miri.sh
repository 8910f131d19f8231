#!/bin/sh
# Undefined behaviour, as far as Miri sees it: format, tokenizer, cache, decoding and, with several
# schedules, the thread pool. It takes a nightly compiler with the component `miri`; without it this
# says so and is no failure. With --install it is installed first, by rustup.
#
#     ci/miri.sh [--install]
set -eu
cd "$(dirname "$0")/.."

toolchain=${MIRI_TOOLCHAIN:-nightly}
if [ "${1:-}" = --install ]; then
    rustup toolchain install "$toolchain" --profile minimal -c miri -c rust-src
fi
if ! cargo "+$toolchain" miri --version >/dev/null 2>&1; then
    echo "miri: there is no $toolchain compiler with it here, skipped (--install installs it)"
    exit 0
fi

CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}/miri
# Time and threads as a program has them; CPU features are not Miri's, so the kernels are the
# specification's.
MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-permissive-provenance"
export CARGO_TARGET_DIR MIRIFLAGS
# In a debug build's checks, without optimization, which only costs time here.
export CARGO_PROFILE_DEV_OPT_LEVEL=0
# Tests that count to millions are for compiled programs.
set -- \
    --skip largest --skip unicode --skip late --skip every_thread --skip conformance \
    --skip draws_follow --skip the_lowest_temperature --skip filters_keep --skip roofline \
    --skip huge_pages --skip peak --skip proptest --skip math::tests --skip sorted
cargo "+$toolchain" miri test -q -p pocketgpt-runtime --no-default-features --features std --lib -- \
    format kv_cache parallel pool scalar decoding tokenizer quant workspace branches memory "$@"
echo "miri: nothing found"
