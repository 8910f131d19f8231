#!/bin/sh
# Builds for 64-bit ARM and tests under QEMU, on Debian for x86-64:
#   - every set of kernels against the specification, on CPUs without dotprod, with it, with i8mm;
#   - a checkpoint converted and run end to end on the plainest and on the newest CPU;
#   - one static program that writes the same text on all of them as here.
# Missing tools are installed from Debian, which takes root. Set CARGO_TARGET_DIR to keep the
# build elsewhere.
set -eu
cd "$(dirname "$0")/.."

TARGET=aarch64-unknown-linux-gnu

# rustup's compiler does if it has the target. Else it is Debian's, whose standard library for
# arm64 is unpacked beside its own: dpkg need not know a second architecture.
compiler() {
    for rustc in "${RUSTC:-rustc}" /usr/bin/rustc; do
        sysroot=$("$rustc" --print sysroot 2>/dev/null) || continue
        if ls "$sysroot/lib/rustlib/$TARGET/lib/"libstd-*.rlib >/dev/null 2>&1; then
            command -v "$rustc"
            return
        fi
    done
}

install_tools() (
    export DEBIAN_FRONTEND=noninteractive
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    # For these calls apt looks at two architectures, whatever else dpkg is told of: a broken
    # index of another would hide the packages.
    printf '#clear APT::Architectures;\nAPT::Architectures { "amd64"; "arm64"; };\n' \
        >"$folder/apt.conf"
    export APT_CONFIG="$folder/apt.conf"
    apt-get -qq update
    apt-get -qq install -y --no-install-recommends \
        gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user
    if [ -z "$(compiler)" ]; then
        apt-get -qq install -y --no-install-recommends rustc-web
        version=$(dpkg-query -W -f '${Version}' libstd-rust-web-dev)
        cd "$folder"
        apt-get -qq -o APT::Sandbox::User=root download "libstd-rust-web-dev:arm64=$version"
        dpkg-deb -x libstd-rust-web-dev_*_arm64.deb /
    fi
)

if [ -z "$(compiler)" ] || ! command -v qemu-aarch64 >/dev/null ||
    ! command -v aarch64-linux-gnu-gcc >/dev/null; then
    install_tools >/dev/null
fi

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

RUSTC=$(compiler)
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

log=$(mktemp)
trap 'rm -f "$log"' EXIT
run() {
    "$@" >"$log" 2>&1 || { cat "$log"; exit 1; }
}

PROMPT="Once upon a time"
"$CARGO_TARGET_DIR/debug/pocketgpt" generate "$PROMPT" --seed 1 -n 40 >"$log" 2>/dev/null
expected=$(cat "$log")

on_cpu() {
    POCKETGPT_QEMU_CPU=$1
    POCKETGPT_REQUIRE_ISA=$2
    export POCKETGPT_QEMU_CPU POCKETGPT_REQUIRE_ISA
    run for_arm test -p pocketgpt-runtime --features bench --lib -- --nocapture kernels math parallel pool
    covered=$(sed -n 's/.*covered: //p' "$log" | sort -u)
    [ -n "$covered" ] || { echo "arm: no conformance test ran on $1"; exit 1; }
    text=$(ci/aarch64-runner "$CARGO_TARGET_DIR/$TARGET/debug/pocketgpt" \
        generate "$PROMPT" --seed 1 -n 40 2>/dev/null)
    [ "$text" = "$expected" ] || { echo "arm: another text on $1: $text"; exit 1; }
    echo "arm: $1 equals the specification on $covered and writes the same text"
}
on_cpu cortex-a53 neon
on_cpu cortex-a72 neon
on_cpu cortex-a76 neon,dotprod
on_cpu max neon,dotprod,i8mm

for cpu in cortex-a53 max; do
    export POCKETGPT_QEMU_CPU="$cpu"
    run for_arm test -p pocketgpt-tests --test end_to_end -- \
        golden_forward::everything_inside greedy::greedy_cases
    echo "arm: golden forward pass and greedy texts on $cpu"
done

# The C library: its programs, and the test of every error, write what they write here.
for_arm build -p pocketgpt-capi
c_programs=$(mktemp -d)
trap 'rm -rf "$log" "$c_programs"' EXIT
# The model is the one that the command line was built with.
cp "$(find "$CARGO_TARGET_DIR/debug/build" -path '*/pocketgpt-[0-9a-f]*/out/model.pgpt' | head -n 1)" \
    "$c_programs/model.pgpt"
make -s -C examples/c BUILD="$c_programs" LIB="$CARGO_TARGET_DIR/$TARGET/debug/libpocketgpt.a" \
    MODEL="$c_programs/model.pgpt" CC=aarch64-linux-gnu-gcc LDFLAGS=-static all "$c_programs/errors"
export POCKETGPT_QEMU_CPU=cortex-a53
run ci/aarch64-runner "$c_programs/errors" "$c_programs/model.pgpt"
text=$(ci/aarch64-runner "$c_programs/no_heap" "$PROMPT")
case $text in
"$expected"*) echo "arm: C programs on $POCKETGPT_QEMU_CPU" ;;
*) echo "arm: another text from C: $text"; exit 1 ;;
esac
