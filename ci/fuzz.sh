#!/bin/sh
# Builds the fuzz targets, replays their seeds and what was ever found, and fuzzes each target for
# a short time:
#
#     ci/fuzz.sh [seconds for each target, 30 without] [target …]
#
# This is cargo-fuzz's layout and cargo-fuzz works in `fuzz/` as well, but it is not needed: a
# nightly compiler is taken if there is one, else the installed one with RUSTC_BOOTSTRAP=1.
# AddressSanitizer and coverage come with the compiler, libFuzzer is built by `libfuzzer-sys` with
# the system's C++ compiler. Set CARGO_TARGET_DIR to keep the build elsewhere, FUZZ_CORPUS to keep
# what is found interesting (else a temporary folder).
set -eu
cd "$(dirname "$0")/.."

seconds=${1:-30}
[ $# -eq 0 ] || shift
targets=${*:-open_and_run checkpoint tokenizer sampling saved_session}

TARGET=$(rustc -vV | sed -n 's/^host: //p')
case $TARGET in
    x86_64-unknown-linux-gnu | aarch64-unknown-linux-gnu) ;;
    *) echo "fuzz: no sanitizer for $TARGET here, skipped"; exit 0 ;;
esac
if ! command -v c++ >/dev/null; then
    { apt-get -qq update && DEBIAN_FRONTEND=noninteractive \
        apt-get -qq install -y --no-install-recommends g++; } >/dev/null
fi
if [ "${FUZZ_TOOLCHAIN:-}" ]; then
    export RUSTUP_TOOLCHAIN="$FUZZ_TOOLCHAIN"
else
    # The compiler that everything else is built with: no second one need be downloaded.
    export RUSTC_BOOTSTRAP=1
fi

# What cargo-fuzz passes, with AddressSanitizer.
RUSTFLAGS="-Zsanitizer=address --cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
 -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1"
RUSTFLAGS=$(printf %s "$RUSTFLAGS" | tr -d '\n')
export RUSTFLAGS
CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}/fuzz
export CARGO_TARGET_DIR
# With a target named, build scripts and macros are built without these flags.
cargo build --quiet --locked --manifest-path fuzz/Cargo.toml --release --target "$TARGET" --bins
bin=$CARGO_TARGET_DIR/$TARGET/release

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
corpus=${FUZZ_CORPUS:-$work/corpus}
"$bin/seeds" "$work/seeds"
export ASAN_OPTIONS=detect_odr_violation=0:allocator_may_return_null=1:detect_leaks=0
fuzz() {
    target=$1
    found=$work/found/$target
    mkdir -p "$corpus/$target" "$found" "fuzz/regressions/$target"
    if ! "$bin/$target" -max_total_time="$seconds" -max_len=65536 -len_control=0 -timeout=25 \
        -rss_limit_mb=2048 -print_final_stats=1 -artifact_prefix="$found/" \
        "$corpus/$target" "$work/seeds/$target" "fuzz/regressions/$target" >"$work/$target.log" 2>&1; then
        tail -n 60 "$work/$target.log"
        for input in "$found"/*; do
            echo "fuzz: $target fails on this input (base64):"
            base64 "$input" | head -c 200000
        done
        return 1
    fi
    executed=$(sed -n 's/^stat::number_of_executed_units: *//p' "$work/$target.log")
    covered=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$work/$target.log" | tail -n 1)
    echo "fuzz: $target: $executed inputs, $covered edges, nothing found"
}

# Two at a time: one each for the CPUs of a small machine.
failed=0
first=
for target in $targets; do
    if [ -z "$first" ]; then
        fuzz "$target" &
        first=$!
    else
        fuzz "$target" &
        second=$!
        # Both are waited for, so that neither works on in a folder that is removed.
        wait "$first" || failed=1
        wait "$second" || failed=1
        first=
        [ "$failed" -eq 0 ] || exit 1
    fi
done
[ -z "$first" ] || wait "$first" || failed=1
exit "$failed"
