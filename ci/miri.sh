#!/bin/sh
# Undefined behaviour, as far as Miri sees it: the thread pool with several schedules, sampling, and
# what the kernels of the specification do with vectors. With --all the other rooms of the runtime as
# well, a small model with every kind of cache, and all kernels, those of AVX2 too, which takes hours.
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
# Miri has the instructions that are named when it builds, whatever this machine must have.
export POCKETGPT_REQUIRE_ISA=scalar
miri() {
    start=$(date +%s)
    cargo "+$toolchain" miri test -q -p pocketgpt-runtime --no-default-features --features std,mmap "$@"
    echo "miri: $(($(date +%s) - start)) s: $*"
}

# Time and threads as a program has them.
common="-Zmiri-disable-isolation -Zmiri-permissive-provenance"
export MIRIFLAGS="$common -Zmiri-many-seeds=0..4"
miri --lib -- a_few_jobs parallel
export MIRIFLAGS="$common"
# Sampling, without the tests that draw thousands of times; the kernels of the specification.
miri --lib -- decoding::sampler decoding::processors decoding::options conformance::quantization \
    conformance::vectors --skip draws_follow --skip the_lowest --skip filters_keep
if [ "${1:-}" = --all ]; then
    # Every byte of padding, a file opened for each, is for compiled programs.
    miri --test format -- rejects --skip rejects_padding_not_zero
    miri --test format -- a_small_text any_weights
    # Tests that count to millions are for compiled programs.
    miri --lib -- conformance decoding::lookup tokenizer workspace branches memory overflow \
        --skip largest --skip unicode
    case $(rustc -vV | sed -n 's/^host: //p') in
        x86_64-*)
            # Built anew: Miri has the instructions that are named here, not those of the CPU.
            export RUSTFLAGS="-Ctarget-feature=+avx2,+fma,+f16c" POCKETGPT_REQUIRE_ISA=scalar,avx2
            CARGO_TARGET_DIR=$CARGO_TARGET_DIR/avx2
            miri --lib -- conformance
            ;;
    esac
fi
echo "miri: nothing found"
