# Debian packages, which take root to install. To be sourced:
#
#     . ci/packages.sh
#     install_packages valgrind make
#
# A server that does not answer is asked again. apt itself goes on with an index that it has from
# before, and would install older packages.

update_packages() {
    for seconds in 5 20 60; do
        apt-get -qq update -o Acquire::Retries=3 --error-on=any && return
        sleep "$seconds"
    done
    # An index that never comes may be one that is not needed.
    apt-get -qq update
}

install_packages() {
    update_packages >/dev/null
    DEBIAN_FRONTEND=noninteractive apt-get -qq -o Acquire::Retries=3 install -y \
        --no-install-recommends "$@" >/dev/null
}
