# SPDX-License-Identifier: LGPL-2.1-or-later
# Sourced: what Debian 12 must have installed, and how to get it.
BUILD_PACKAGES=(gcc libc6-dev meson ninja-build pkg-config libglib2.0-dev libjson-glib-dev
    libgnutls28-dev libcmocka-dev libsystemd-dev libxxhash-dev libxml2-dev libvirt-dev)
LAB_PACKAGES=(python3 procps iproute2 iptables util-linux mount e2fsprogs qemu-system-x86
    qemu-utils qemu-block-extra gnutls-bin busybox-static cpio kmod linux-image-cloud-amd64)
TEST_PACKAGES=(python3-pytest scdoc nbdkit nbd-server libnbd-bin diffutils util-linux-extra)
LIBVIRT_PACKAGES=(libvirt-daemon libvirt-daemon-driver-qemu libvirt-daemon-system libvirt-clients)

# install_packages NAME...: asks the network only when something is missing.
install_packages() {
    local missing=() name
    for name; do
        dpkg-query -W -f '${Status}\n' "$name" 2>/dev/null | grep -q 'ok installed' || missing+=("$name")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    if [ "$(id -u)" != 0 ]; then
        echo "missing packages (run as root, or install them): ${missing[*]}" >&2
        return 1
    fi
    echo "installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    local log; log=$(mktemp)
    { apt-get -q update && apt-get -q install -y --no-install-recommends "${missing[@]}"; } \
        >"$log" 2>&1 || { tail -n 40 "$log" >&2; rm -f "$log"; return 1; }
    rm -f "$log"
}
