#!/bin/sh
# Builds the fuzz targets, replays their seeds, the corpus and what was ever found, and fuzzes each
# target for a short time:
#
#     ci/fuzz.sh [seconds for each target, 30 without] [target …]
#
# This is cargo-fuzz's layout and cargo-fuzz works in `fuzz/` as well, but it is not needed: the
# compiler of FUZZ_TOOLCHAIN is taken, without it the installed one with RUSTC_BOOTSTRAP=1.
# AddressSanitizer and coverage come with the compiler, libFuzzer is built by `libfuzzer-sys` with
# the system's C++ compiler. Set CARGO_TARGET_DIR to keep the build elsewhere, FUZZ_CORPUS to keep
# what is found interesting (else a temporary folder). `fuzz/inputs` is a corpus chosen out of long
# runs, see `ci/fuzz_inputs.py`.
#
# Asked to end (SIGTERM, SIGINT) it ends its fuzzers.
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
. ci/packages.sh
if ! command -v c++ >/dev/null; then
    install_packages g++
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
# What works at the moment. A shell ends nothing that it started, and what it starts in the background
# does not hear an interrupt from the terminal, so it is told.
children=
end() {
    trap '' TERM INT
    # shellcheck disable=SC2086
    [ -z "$children" ] || kill $children 2>/dev/null || true
    wait
    exit "$1"
}
trap 'end 143' TERM
trap 'end 130' INT

# With a target named, build scripts and macros are built without these flags.
cargo build --quiet --locked --manifest-path fuzz/Cargo.toml --release --target "$TARGET" --bins &
children=$!
wait "$children"
children=
bin=$CARGO_TARGET_DIR/$TARGET/release

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
corpus=${FUZZ_CORPUS:-$work/corpus}
"$bin/seeds" "$work/seeds"
export ASAN_OPTIONS=detect_odr_violation=0:allocator_may_return_null=1:detect_leaks=0
# Runs a fuzzer on what follows and waits for it, so that a signal is heard at once.
fuzzer() {
    "$bin/$target" -max_len=65536 -len_control=0 -timeout=25 -rss_limit_mb=2048 "$@" &
    children=$!
    code=0
    wait "$children" || code=$?
    children=
    return "$code"
}

# Edges that the log tells last, behind `INITED` those of the inputs before anything was changed.
edges() {
    sed -n "s/.*$1.* cov: \([0-9]*\) .*/\1/p" "$work/$target.log" | tail -n 1
}

# Begins in a shell of its own, for which the traps are set anew.
fuzz() {
    target=$1
    children=
    trap 'end 143' TERM
    trap - EXIT
    found=$work/found/$target
    mkdir -p "$corpus/$target" "$found" "fuzz/regressions/$target"
    if [ -z "$(ls "fuzz/inputs/$target" 2>/dev/null)" ]; then
        echo "fuzz: there is no corpus of $target in fuzz/inputs"
        return 1
    fi
    # Once each; a failure is shown by the run below.
    fuzzer -runs=0 -artifact_prefix="$work/" "$work/seeds/$target" >"$work/$target.log" 2>&1 || true
    of_seeds=$(edges INITED)
    if ! fuzzer -max_total_time="$seconds" -print_final_stats=1 -artifact_prefix="$found/" \
        "$corpus/$target" "$work/seeds/$target" "fuzz/inputs/$target" "fuzz/regressions/$target" \
        >"$work/$target.log" 2>&1; then
        tail -n 60 "$work/$target.log"
        for input in "$found"/*; do
            echo "fuzz: $target fails on this input (base64):"
            base64 "$input" | head -c 200000
        done
        return 1
    fi
    executed=$(sed -n 's/^stat::number_of_executed_units: *//p' "$work/$target.log")
    echo "fuzz: $target: $executed inputs, $(edges '') edges ($of_seeds of the seeds," \
        "$(edges INITED) with the corpus), nothing found"
}

# Two at a time: one each for the CPUs of a small machine.
failed=0
for target in $targets; do
    fuzz "$target" &
    children="$children $!"
    # shellcheck disable=SC2086
    set -- $children
    if [ $# -eq 2 ]; then
        # Both are waited for, so that neither works on in a folder that is removed.
        wait "$1" || failed=1
        wait "$2" || failed=1
        children=
        [ "$failed" -eq 0 ] || exit 1
    fi
done
# shellcheck disable=SC2086
for child in $children; do
    wait "$child" || failed=1
done
exit "$failed"
