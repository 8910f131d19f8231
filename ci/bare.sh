#!/bin/sh
# The runtime without std:
#   - it builds for machines without operating system, where there is no allocator to be had;
#   - so does the C library;
#   - firmware boots in QEMU as a Raspberry Pi 3, as `virt` and on a Cortex-M7, and writes, byte for
#     byte, the text that the command line writes here; its pin is set once for each token, and the
#     stack it took is within the limit.
# Missing tools come from Debian, which takes root. QEMU is unpacked beside the build and not
# installed, so that no other QEMU is touched. Set CARGO_TARGET_DIR to keep the build elsewhere.
set -eu
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-$PWD/target}
bare=$target/bare
mkdir -p "$bare"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# rustup's compiler does if it has the targets. Else core is built from Debian's source of it.
. ci/packages.sh
. ci/rust-target.sh
build_std=
for name in x86_64-unknown-none aarch64-unknown-none thumbv7em-none-eabihf; do
    has_rust_target "$name" || build_std=-Zbuild-std=core
done
[ -z "$build_std" ] || install_std_source
sysroot=$("${RUSTC:-rustc}" --print sysroot)
linker=$(find "$sysroot/lib/rustlib" -name rust-lld | head -n 1)
[ -n "$linker" ] || { echo "bare: $sysroot has no rust-lld"; exit 1; }

# What is not installed is unpacked here, before its output is anybody's.
root=$bare/qemu
if ! command -v qemu-system-aarch64 >/dev/null || ! command -v qemu-system-arm >/dev/null; then
    [ -e "$root/usr/bin/qemu-system-aarch64" ] || unpack_packages "$root" qemu-system-arm
fi

qemu() {
    machine=$1
    shift
    if command -v "$machine" >/dev/null; then
        timeout 120 "$machine" "$@" </dev/null
        return
    fi
    LD_LIBRARY_PATH=$root/usr/lib/x86_64-linux-gnu:$root/lib/x86_64-linux-gnu \
        timeout 120 "$root/usr/bin/$machine" -L "$root/usr/share/qemu" "$@" </dev/null
}

# For targets without std, apart from the other builds; with one profile, so that core is built once
# for each target.
for_bare() (
    if [ -n "$build_std" ]; then
        export RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1
    fi
    export CARGO_TARGET_AARCH64_UNKNOWN_NONE_LINKER="$linker"
    export CARGO_TARGET_THUMBV7EM_NONE_EABIHF_LINKER="$linker"
    export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=4
    export CARGO_PROFILE_RELEASE_PANIC=abort CARGO_PROFILE_RELEASE_DEBUG=false
    "$@"
)

cargo fmt --manifest-path examples/bare-metal/Cargo.toml --check

# Only core is there: what needs an allocator does not build.
for_bare cargo build --quiet --release -p pocketgpt-runtime --no-default-features \
    --target x86_64-unknown-none --target-dir "$bare" $build_std
for_bare cargo rustc --quiet --release -p pocketgpt-capi --no-default-features \
    --crate-type staticlib --target thumbv7em-none-eabihf --target-dir "$bare" $build_std
echo "bare: the runtime builds for x86_64-unknown-none, libpocketgpt.a for thumbv7em-none-eabihf"

# One by one, as users do: together they would be built with other features, anew.
cargo build --quiet --release -p pocketgpt-quantize
cargo build --quiet --release -p pocketgpt
firmware() {
    board=$1 triple=$2 bits=$3 high=$4
    shift 4
    model=$bare/model-$bits.pgpt
    [ -e "$model" ] ||
        "$target/release/pocketgpt-quantize" convert examples/model -o "$model" --to "$bits" --quiet
    "$target/release/pocketgpt" generate -m "$model" --kv q8 --quiet --seed 1 -n "$TOKENS" \
        "Once upon a time" >"$work/expected"
    for_bare make -s -C examples/bare-metal build BOARD="$board" TARGET_DIR="$bare" \
        MODEL="$model" CARGO_FLAGS="--quiet $build_std"
    qemu "$@" -nographic -nic none -semihosting \
        -kernel "$bare/$triple/release/pocketgpt-bare-metal" -D "$work/trace" \
        >"$work/text" 2>"$work/notes" ||
        { cat "$work/text" "$work/notes"; echo "bare: $board failed"; exit 1; }
    cmp "$work/text" "$work/expected"
    # The pin is set high before each pass through the model.
    passes=$(grep -c "$high" "$work/trace" || true)
    [ -z "$high" ] || [ "$passes" -eq "$TOKENS" ] ||
        { echo "bare: $board set its pin $passes times, not $TOKENS"; exit 1; }
    stack=$(sed -n 's/^stack: \([0-9]*\) bytes used$/\1/p' "$work/notes")
    [ "${stack:-65536}" -le "$STACK" ] ||
        { cat "$work/notes"; echo "bare: $board uses more than $STACK bytes of stack"; exit 1; }
    echo "bare: $board writes the text of the command line, with $stack bytes of stack"
}
# As in examples/bare-metal/src/main.rs.
TOKENS=40
# Of the 192 KB that are reserved; see docs/embedding.md.
STACK=57344
firmware virt aarch64-unknown-none q8 "output 0 to 1" \
    qemu-system-aarch64 -M virt -cpu cortex-a72 -d trace:pl061_set_output
# QEMU does not tell of this one's pins.
firmware raspi3b aarch64-unknown-none q8 "" qemu-system-aarch64 -M raspi3b
firmware mps2-an500 thumbv7em-none-eabihf q4 "offset 0x0 data 0x1 " \
    qemu-system-arm -M mps2-an500 -d trace:mps2_fpgaio_write
