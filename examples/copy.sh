#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# examples/copy.sh: copies a disk from a qemu-nbd over TLS, kills the copy half-way, goes on with it,
# verifies it, and compares both disks.  It needs no root once the packages are there, and leaves
# nothing behind.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
export VMFERRY_BUILD=${VMFERRY_BUILD:-$PWD/build}
[ $# = 0 ] || { echo "usage: examples/copy.sh" >&2; exit 2; }

. tests/lab/packages.sh
install_packages "${BUILD_PACKAGES[@]}" python3 qemu-utils gnutls-bin
echo "* building vmferry"
tests/build.sh
PATH=$VMFERRY_BUILD/daemon:$PATH

dir=$(mktemp -d "${TMPDIR:-/tmp}/vmferry-copy.XXXXXX")
server=
copy=
clean_up() {
    for pid in $copy $server; do kill -9 "$pid" 2>/dev/null || :; done
    wait 2>/dev/null || :
    rm -rf "$dir"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# make_pair ROLE LINE...: ROLE-cert.pem and ROLE-key.pem, of the CA.
make_pair() {
    local role=$1; shift
    printf '%s\n' 'expiration_days = 2' signing_key "$@" >"$dir/$role.template"
    certtool --generate-privkey --outfile "$dir/pki/$role-key.pem"
    certtool --generate-certificate --load-privkey "$dir/pki/$role-key.pem" \
        --load-ca-certificate "$dir/pki/ca-cert.pem" --load-ca-privkey "$dir/ca-key.pem" \
        --template "$dir/$role.template" --outfile "$dir/pki/$role-cert.pem"
}

echo "* making a CA and certificates for the server and the client"
mkdir "$dir/pki"
{
    certtool --generate-privkey --outfile "$dir/ca-key.pem"
    printf '%s\n' 'cn = "example CA"' ca cert_signing_key 'expiration_days = 2' >"$dir/ca.template"
    certtool --generate-self-signed --load-privkey "$dir/ca-key.pem" \
        --template "$dir/ca.template" --outfile "$dir/pki/ca-cert.pem"
    make_pair server 'cn = "localhost"' 'dns_name = "localhost"' tls_www_server
    make_pair client 'cn = "backup"' tls_www_client
} 2>"$dir/log" || { cat "$dir/log" >&2; exit 1; }

echo "* making a disk of 512 MiB, half of it data"
truncate -s 512M "$dir/disk.raw"
for at in 0 128 256 384; do
    dd if=/dev/urandom of="$dir/disk.raw" bs=1M count=64 seek=$at conv=notrunc status=none
done

# A port that is free now may be taken a moment later: try another one.
for _ in 1 2 3 4 5; do
    port=$(python3 -c 'import socket; s = socket.create_server (("127.0.0.1", 0)); print (s.getsockname ()[1])')
    if qemu-nbd --fork --pid-file="$dir/pid" --persistent --shared=4 --read-only --format=raw \
        --bind=localhost --port="$port" --export-name=vda --tls-creds=tls \
        --object=tls-creds-x509,id=tls,endpoint=server,verify-peer=yes,dir="$dir/pki" \
        "$dir/disk.raw" 2>"$dir/log"
    then
        server=$(cat "$dir/pid")
        break
    fi
done
[ -n "$server" ] || { cat "$dir/log" >&2; exit 1; }
uri="nbds://localhost:$port/vda?tls-certificates=$dir/pki"
echo "* qemu-nbd serves it: $uri"

# Slowly, so that there is a half-way to be killed at.
echo "* vmferry copy URI $dir/copy.raw --verify --rate 64M --json, until half is done"
mkfifo "$dir/events"
vmferry copy "$uri" "$dir/copy.raw" --verify --rate 64M --json >"$dir/events" 2>"$dir/log" &
copy=$!
done_bytes=0
while [ "$done_bytes" -lt $((256 << 20)) ]; do
    IFS= read -r line || { cat "$dir/log" >&2; exit 1; }
    [[ ! $line =~ \"done_bytes\":([0-9]+) ]] || done_bytes=${BASH_REMATCH[1]}
done <"$dir/events"
echo "* kill -9; what is there now:"
kill -9 "$copy"
wait "$copy" 2>/dev/null || :
copy=
(cd "$dir" && ls -s --block-size=1M copy.raw*)

echo "* vmferry copy URI $dir/copy.raw --verify --resume"
vmferry copy "$uri" "$dir/copy.raw" --verify --resume
echo "* qemu-img compare:"
qemu-img compare -f raw -F raw "$dir/disk.raw" "$dir/copy.raw"
(cd "$dir" && ls -s --block-size=1M disk.raw copy.raw*)
