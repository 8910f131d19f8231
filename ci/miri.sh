#!/bin/sh
# Undefined behaviour, as far as Miri sees it: the thread pool with several schedules. With --all the
# other rooms of the runtime as well, which takes hours.
# It takes a nightly compiler with the component `miri`; without it this says so and is no failure:
#
#     rustup toolchain install nightly --profile minimal -c miri -c rust-src
#     ci/miri.sh [--all]
set -eu
cd "$(dirname "$0")/.."

toolchain=${MIRI_TOOLCHAIN:-nightly}
if ! cargo "+$toolchain" miri --version >/dev/null 2>&1; then
    echo "miri: there is no $toolchain compiler with it here, skipped"
    exit 0
fi

CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}/miri
export CARGO_TARGET_DIR
# Optimization only costs time here.
export CARGO_PROFILE_DEV_OPT_LEVEL=0
miri() {
    cargo "+$toolchain" miri test -q -p pocketgpt-runtime --no-default-features --features std "$@"
}

# Time and threads as a program has them.
common="-Zmiri-disable-isolation -Zmiri-permissive-provenance"
export MIRIFLAGS="$common -Zmiri-many-seeds=0..4"
miri --lib -- a_few_jobs parallel
if [ "${1:-}" = --all ]; then
    export MIRIFLAGS="$common"
    miri --features mmap --test format -- rejects
    # Tests that count to millions are for compiled programs.
    miri --lib -- kv_cache tokenizer quant workspace branches memory overflow saved decoding \
        --skip largest --skip unicode --skip draws_follow --skip the_lowest --skip filters_keep
fi
echo "miri: nothing found"
