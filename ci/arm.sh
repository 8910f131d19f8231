#!/bin/sh
# Builds for 64-bit ARM and tests under QEMU, on Debian for x86-64:
#   - every set of kernels against the specification, on CPUs without dotprod, with it, with i8mm;
#   - the hashes of logits and the texts in tests/data/golden/hashes.json, on each set;
#   - a checkpoint converted and run end to end on the plainest and on the newest CPU;
#   - one static program that writes the same text on all of them as here, with each set;
#   - the quick end-to-end tests on the newest CPU, and the C programs.
# `ci/arm.sh --all` runs all end-to-end tests but perplexity on each of these CPUs besides, with the
# newest set it has; it takes an hour or two.
# Missing tools are installed from Debian, which takes root. Set CARGO_TARGET_DIR to keep the
# build elsewhere.
set -eu
cd "$(dirname "$0")/.."

. ci/packages.sh
. ci/arm-tools.sh
arm_tools

# The program of this machine, to compare with. Both builds leave dependencies unoptimized: they
# take longer to optimize than to run.
cargo_test_profile() {
    command=$1
    shift
    CARGO_PROFILE_DEV_BUILD_OVERRIDE_OPT_LEVEL=0 \
        cargo "$command" --quiet --config 'profile.dev.package."*".opt-level=0' "$@"
}
CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}/arm
export CARGO_TARGET_DIR
cargo_test_profile build -p pocketgpt

# Models are converted here, where it is fast; the end-to-end tests below do it there as well.
POCKETGPT_TEST_FILES=$(mktemp -d)
log=$(mktemp)
folder=$POCKETGPT_TEST_FILES
trap 'rm -rf "$log" "$folder"' EXIT
run() {
    "$@" >"$log" 2>&1 || { cat "$log"; exit 1; }
}
export POCKETGPT_TEST_FILES
# All of them where all tests follow: what a test finds converted it need not convert under QEMU. One
# thread, since they share files; when the files are there, several will do.
tests=golden_hashes
[ "${1:-}" != --all ] || tests="--skip loss::"
# shellcheck disable=SC2086 # no argument where it is empty
run cargo_test_profile test -p pocketgpt-tests --test end_to_end -- --test-threads 1 $tests

RUSTC=$(arm_compiler)
export RUSTC RUSTFLAGS="-C target-feature=+crt-static"
echo "arm: compiler $("$RUSTC" --version)"
for_arm() {
    command=$1
    shift
    cargo_test_profile "$command" --target "$TARGET" "$@"
}
for_arm build -p pocketgpt
for_arm test --no-run -p pocketgpt-runtime --features bench --lib
for_arm test --no-run -p pocketgpt-tests --test end_to_end

PROMPT="Once upon a time"
"$CARGO_TARGET_DIR/debug/pocketgpt" generate "$PROMPT" --seed 1 -n 40 >"$log" 2>/dev/null
expected=$(cat "$log")

on_cpu() {
    POCKETGPT_QEMU_CPU=$1
    POCKETGPT_REQUIRE_ISA=$2
    POCKETGPT_ISA=$3
    export POCKETGPT_QEMU_CPU POCKETGPT_REQUIRE_ISA POCKETGPT_ISA
    run for_arm test -p pocketgpt-runtime --features bench --lib -- --nocapture kernels math parallel pool
    covered=$(sed -n 's/.*covered: //p' "$log" | sort -u)
    [ -n "$covered" ] || { echo "arm: no conformance test ran on $1"; exit 1; }
    run for_arm test -p pocketgpt-tests --test end_to_end -- --nocapture golden_hashes
    hashes=$(sed -n 's/.*golden hashes: //p' "$log")
    [ -n "$hashes" ] || { echo "arm: no hashes were compared on $1"; exit 1; }
    for isa in $(echo "$2" | tr , ' '); do
        text=$(ci/aarch64-runner "$CARGO_TARGET_DIR/$TARGET/debug/pocketgpt" \
            generate "$PROMPT" --seed 1 -n 40 --isa "$isa" 2>"$log") || { cat "$log"; exit 1; }
        [ "$text" = "$expected" ] || { echo "arm: another text on $1, --isa $isa: $text"; exit 1; }
    done
    echo "arm: $1 equals the specification on $covered, writes the same text on $2; golden hashes: $hashes"
}
# What QEMU computes does not depend on which CPU it is asked for, so sets are hashed where they
# are new, and the scalar code once.
on_cpu cortex-a53 neon scalar,neon
on_cpu cortex-a72 neon neon
on_cpu cortex-a76 neon,dotprod neon,dotprod
on_cpu max neon,dotprod,i8mm dotprod,i8mm

# The newest CPU converts the checkpoint itself.
unset POCKETGPT_ISA
for cpu in cortex-a53 max; do
    export POCKETGPT_QEMU_CPU="$cpu"
    [ "$cpu" = cortex-a53 ] || unset POCKETGPT_TEST_FILES
    run for_arm test -p pocketgpt-tests --test end_to_end -- --nocapture \
        golden_forward::everything_inside
    grep -q "1 passed" "$log" || { echo "arm: this test is gone"; exit 1; }
    echo "arm: golden forward pass of transformers on $cpu"
done

# Of the other end-to-end tests those that take seconds there; one thread, since they share files.
export POCKETGPT_TEST_FILES="$folder" POCKETGPT_QEMU_CPU=max
run for_arm test -p pocketgpt-tests --test end_to_end -- --test-threads 1 \
    --skip saved::any_bytes --skip saved::texts_go_on \
    branches::what embedded limits overflow::odd overflow::stop overflow::what saved tokenizer warpers
passed=$(sed -n 's/.*ok. \([0-9]*\) passed.*/\1/p' "$log")
[ "${passed:-0}" -ge 15 ] || { echo "arm: only ${passed:-0} of the quick tests are left"; exit 1; }
echo "arm: $passed quick end-to-end tests on max"

if [ "${1:-}" = --all ]; then
    # Hours of emulation are worth optimizing for; what is checked stays checked.
    export CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS=true
    export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
    export CARGO_PROFILE_RELEASE_DEBUG=0
    # Each set of kernels in turn; `bit_identity` and `golden_hashes` compare it with the scalar code and with
    # other machines, the other tests with itself. The texts of transformers are divided among the CPUs,
    # since matrices of f32 are multiplied by the same code on all of them. Perplexity over the whole
    # text would take hours more, of numbers whose bits are compared.
    part=0
    for cpu in cortex-a53:neon cortex-a72:neon cortex-a76:dotprod max:i8mm; do
        export POCKETGPT_QEMU_CPU="${cpu%:*}" POCKETGPT_ISA="${cpu#*:}"
        part=$((part + 1))
        export POCKETGPT_TEST_PART="$part/4"
        start=$(date +%s)
        run for_arm test --release -p pocketgpt-tests --test end_to_end -- --skip loss::
        passed=$(sed -n 's/.*ok. \([0-9]*\) passed.*/\1/p' "$log")
        [ "${passed:-0}" -ge 45 ] || { echo "arm: only ${passed:-0} tests on $cpu"; exit 1; }
        echo "arm: $passed end-to-end tests on $cpu in $(($(date +%s) - start)) s"
    done
    unset POCKETGPT_ISA POCKETGPT_TEST_PART
fi

# The C library: its programs, and the test of every error, write what they write here.
for_arm build -p pocketgpt-capi
c_programs=$(mktemp -d)
trap 'rm -rf "$log" "$folder" "$c_programs"' EXIT
# The model is the one that the command line was built with.
cp "$(find "$CARGO_TARGET_DIR/debug/build" -path '*/pocketgpt-[0-9a-f]*/out/model.pgpt' | head -n 1)" \
    "$c_programs/model.pgpt"
make -s -C examples/c BUILD="$c_programs" LIB="$CARGO_TARGET_DIR/$TARGET/debug/libpocketgpt.a" \
    MODEL="$c_programs/model.pgpt" CC=aarch64-linux-gnu-gcc LDFLAGS=-static all "$c_programs/errors"
export POCKETGPT_QEMU_CPU=cortex-a53
run ci/aarch64-runner "$c_programs/errors" "$c_programs/model.pgpt"
text=$(ci/aarch64-runner "$c_programs/no_heap" "$PROMPT" 2>"$log") || { cat "$log"; exit 1; }
case $text in
"$expected"*) echo "arm: C programs on $POCKETGPT_QEMU_CPU" ;;
*) echo "arm: another text from C: $text"; exit 1 ;;
esac
