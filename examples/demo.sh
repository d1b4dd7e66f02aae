#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# examples/demo.sh [--keep]: live-migrates a busy virtual machine with two disks between two
# simulated hosts on this machine, and proves that it lost nothing. Root, Debian 12, no other step.
# --keep leaves the hosts up, with the guest at the destination, and says how to go on by hand.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
export VMFERRY_BUILD=${VMFERRY_BUILD:-$PWD/build} VMLAB_STATE=${VMLAB_STATE:-/var/lib/vmlab/demo}
keep=
case "${1:-}" in
    '') ;;
    --keep) keep=--keep ;;
    *) echo "usage: examples/demo.sh [--keep]" >&2; exit 2 ;;
esac
[ "$(id -u)" = 0 ] || { echo "demo.sh: needs root: it makes two hosts out of namespaces" >&2; exit 1; }

. tests/lab/packages.sh
install_packages "${BUILD_PACKAGES[@]}" "${LAB_PACKAGES[@]}"
echo "* building vmferry"
tests/build.sh
exec /usr/bin/python3 examples/demo.py $keep
