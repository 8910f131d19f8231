# Compiler, cross linker and QEMU for 64-bit ARM, on Debian for x86-64. To be sourced:
#
#     . ci/packages.sh
#     . ci/arm-tools.sh
#     arm_tools                  # installs what is missing, which takes root
#     RUSTC=$(arm_compiler)      # one that has the standard library of $TARGET

TARGET=aarch64-unknown-linux-gnu

# rustup's compiler does if it has the target. Else it is Debian's, whose standard library for
# arm64 is unpacked beside its own: dpkg need not know a second architecture.
arm_compiler() {
    for rustc in "${RUSTC:-rustc}" /usr/bin/rustc; do
        sysroot=$("$rustc" --print sysroot 2>/dev/null) || continue
        if ls "$sysroot/lib/rustlib/$TARGET/lib/"libstd-*.rlib >/dev/null 2>&1; then
            command -v "$rustc"
            return
        fi
    done
}

install_arm_tools() (
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    # For these calls apt looks at two architectures, whatever else dpkg is told of: a broken
    # index of another would hide the packages.
    printf '#clear APT::Architectures;\nAPT::Architectures { "amd64"; "arm64"; };\n' \
        >"$folder/apt.conf"
    export APT_CONFIG="$folder/apt.conf"
    compiler=
    [ -n "$(arm_compiler)" ] || compiler=rustc-web
    # shellcheck disable=SC2086 # no argument where it is empty
    install_packages gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user $compiler
    if [ -n "$compiler" ]; then
        version=$(dpkg-query -W -f '${Version}' libstd-rust-web-dev)
        cd "$folder"
        packages_apt -o APT::Sandbox::User=root download "libstd-rust-web-dev:arm64=$version"
        dpkg-deb -x libstd-rust-web-dev_*_arm64.deb /
    fi
)

arm_tools() {
    if [ -z "$(arm_compiler)" ] || ! command -v qemu-aarch64 >/dev/null ||
        ! command -v aarch64-linux-gnu-gcc >/dev/null; then
        install_arm_tools >/dev/null
    fi
    [ -n "$(arm_compiler)" ] || { echo "arm: no compiler has the standard library of $TARGET" >&2; exit 1; }
}
