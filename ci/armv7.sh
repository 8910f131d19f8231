#!/bin/sh
# Builds for 32-bit ARM and tests under QEMU, on Debian for x86-64, as a CPU without the instructions
# that came after ARMv7 (Cortex-A7: Raspberry Pi 2, and a 32-bit system on later ones):
#   - kernels and math against the specification;
#   - the hashes of logits and the texts in tests/data/golden/hashes.json;
#   - one static program that writes the same text as here.
# Missing tools come from rustup or Debian, which takes root. Set CARGO_TARGET_DIR to keep the build
# elsewhere.
set -eu
cd "$(dirname "$0")/.."

. ci/golden-files.sh
. ci/packages.sh
. ci/rust-target.sh
triple=armv7-unknown-linux-gnueabihf
target=${CARGO_TARGET_DIR:-$PWD/target}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
run() {
    "$@" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
}

if ! command -v arm-linux-gnueabihf-gcc >/dev/null || ! command -v qemu-arm >/dev/null; then
    install_packages gcc-arm-linux-gnueabihf libc6-dev-armhf-cross qemu-user
fi
# Models are converted and the expected text written here, where it is fast.
golden_files "$work"
cargo build --quiet --release -p pocketgpt
prompt="Once upon a time"
expected=$("$target/release/pocketgpt" generate "$prompt" --quiet --seed 1 -n 40)

rust_target "$triple" std,panic_abort,test
export CARGO_TARGET_DIR="$target/arm" CARGO_PROFILE_DEV_BUILD_OVERRIDE_OPT_LEVEL=0
export CARGO_TARGET_ARMV7_UNKNOWN_LINUX_GNUEABIHF_LINKER=arm-linux-gnueabihf-gcc
export CARGO_TARGET_ARMV7_UNKNOWN_LINUX_GNUEABIHF_RUNNER="qemu-arm -cpu cortex-a7"
export RUSTFLAGS="-C target-feature=+crt-static" POCKETGPT_TEST_FILES="$work"
export POCKETGPT_REQUIRE_ISA=scalar
# Dependencies take longer to optimize than to run.
for_armv7() {
    command=$1
    shift
    # shellcheck disable=SC2086 # no argument where it is empty
    cargo "$command" --quiet --config 'profile.dev.package."*".opt-level=0' --target "$triple" \
        $BUILD_STD "$@"
}
for_armv7 build -p pocketgpt
program=$CARGO_TARGET_DIR/$triple/debug/pocketgpt
text=$(qemu-arm -cpu cortex-a7 "$program" generate "$prompt" --quiet --seed 1 -n 40)
[ "$text" = "$expected" ] || { echo "armv7: another text: $text"; exit 1; }
# More than 32 bits count is refused, not cut short.
cp "$work/model-q4.pgpt" "$work/large.pgpt"
truncate -s 5G "$work/large.pgpt"
if qemu-arm "$program" info -m "$work/large.pgpt" 2>"$work/log" || ! grep -q 32-bit "$work/log"; then
    cat "$work/log"
    echo "armv7: a file of 5 GB was not refused as too large"
    exit 1
fi

run for_armv7 test -p pocketgpt-runtime --features bench --lib -- kernels math quant workspace \
    decoding::contrastive
grep -q '[1-9][0-9]* passed' "$work/log" || { echo "armv7: no test of kernels ran"; exit 1; }
run for_armv7 test -p pocketgpt-tests --test end_to_end -- --nocapture golden_hashes
hashes=$(sed -n 's/.*golden hashes: //p' "$work/log")
[ -n "$hashes" ] || { echo "armv7: no hashes were compared"; exit 1; }
echo "armv7: the same text from a static program; golden hashes: $hashes"
