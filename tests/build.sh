#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Builds everything into $VMFERRY_BUILD (default: build); says nothing when all goes well.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
build=${VMFERRY_BUILD:-$PWD/build}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
{ [ -e "$build/build.ninja" ] || meson setup "$build"; } >"$log" 2>&1 &&
    ninja -C "$build" >>"$log" 2>&1 || { tail -n 100 "$log" >&2; exit 1; }
