# A compiler for a target that rustup or Debian has the standard library of. To be sourced:
#
#     . ci/packages.sh
#     . ci/rust-target.sh
#     rust_target wasm32-unknown-unknown std,panic_abort
#     cargo build --target wasm32-unknown-unknown $BUILD_STD
#
# rustup's compiler does if it has the target or can fetch it. Else these parts of the standard
# library are built from Debian's source of it, with Debian's compiler, which takes root to install.

has_rust_target() {
    ls "$("${RUSTC:-rustc}" --print sysroot)/lib/rustlib/$1/lib/"libcore-*.rlib >/dev/null 2>&1
}

# Debian's compiler and its source of the standard library.
install_std_source() {
    if [ ! -e /usr/lib/rustlib/src/rust/library/core ]; then
        install_packages rustc-web rust-web-src
    fi
}

rust_target() {
    BUILD_STD=
    if has_rust_target "$1"; then
        return
    fi
    if command -v rustup >/dev/null && rustup target add "$1" >/dev/null 2>&1 &&
        has_rust_target "$1"; then
        return
    fi
    install_std_source
    export RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1
    BUILD_STD=-Zbuild-std=$2
}
