#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Builds the tiny guest (vmlinuz, initrd.gz) and the host's verifier (workload) into $1, from
# Debian's cloud kernel and a static busybox.
set -euo pipefail
src=$(dirname "$(readlink -f "$0")") out=$1
mkdir -p "$out"
kernel=$(ls /boot/vmlinuz-*-cloud-amd64 | sort -V | tail -1)
version=${kernel#/boot/vmlinuz-}

fresh=yes
for file in workload.c init build.sh; do
    [ "$out/initrd.gz" -nt "$src/$file" ] || fresh=no
done
[ "$fresh" = yes ] && [ "$(cat "$out/version" 2>/dev/null)" = "$version" ] && exit 0

gcc -O2 -Wall -Wextra -static -pthread -o "$out/workload" "$src/workload.c"
root=$out/root
rm -rf "$root"
mkdir -p "$root"/{bin,dev,proc,m}
cp "$(command -v busybox)" "$root/bin/busybox"
cp "$out/workload" "$root/workload"
install -m 755 "$src/init" "$root/init"
for m in virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk; do
    cp "$(find "/lib/modules/$version" -name "$m.ko")" "$root/m/"
done
(cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >"$out/initrd.gz"
cp "$kernel" "$out/vmlinuz"
echo "$version" >"$out/version"
