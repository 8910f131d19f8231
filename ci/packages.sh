# Debian packages, which take root to install. To be sourced:
#
#     . ci/packages.sh
#     install_packages valgrind make
#     unpack_packages FOLDER qemu-system-arm    # with what they need, beside the system
#
# A server that does not answer is asked again. apt itself goes on with an index that it has from
# before, and would install older packages.

packages_apt() {
    DEBIAN_FRONTEND=noninteractive apt-get -qq -o Acquire::Retries=3 "$@" >/dev/null
}

update_packages() {
    if [ "$(id -u)" -eq 0 ]; then
        for seconds in 5 20 60; do
            packages_apt update --error-on=any && return
            sleep "$seconds"
        done
    fi
    # An index that never comes may be one that is not needed.
    packages_apt update
}

install_packages() {
    update_packages
    packages_apt install -y --no-install-recommends "$@"
}

unpack_packages() (
    root=$1
    shift
    archives=$(mktemp -d)
    trap 'rm -rf "$archives"' EXIT
    mkdir "$archives/partial"
    update_packages
    packages_apt install -y --no-install-recommends --download-only \
        -o Dir::Cache::archives="$archives" -o APT::Sandbox::User=root "$@"
    for package in "$archives"/*.deb; do dpkg-deb -x "$package" "$root"; done
)
