#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# tests/run.sh [SUITE...]: installs what is missing (Debian), builds, runs the suites unit, fuzz (its
# corpora once more), interop and system (all of them without an argument). $VMFERRY_BUILD: the build
# directory.
# The last line is `N passed, N failed, N skipped`; the exit status is 0 only if all is well.
set -uo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
export VMFERRY_BUILD=${VMFERRY_BUILD:-$PWD/build}
suites=("$@")
[ $# -gt 0 ] || suites=(unit fuzz interop system)
for suite in "${suites[@]}"; do
    case $suite in unit|fuzz|interop|system) ;; *) echo "run.sh: no suite $suite (unit, fuzz, interop, system)" >&2; exit 2 ;; esac
done

. tests/lab/packages.sh
install_packages "${BUILD_PACKAGES[@]}" "${LAB_PACKAGES[@]}" "${TEST_PACKAGES[@]}" "${LIBVIRT_PACKAGES[@]}" || exit 1
tests/build.sh || exit 1

logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
for suite in "${suites[@]}"; do
    echo "== $suite"
    if [ "$suite" = system ]; then
        /usr/bin/python3 -m pytest -p no:cacheprovider -q --maxfail=20 --durations=10 --tb=short \
            --junitxml="$logs/system.xml" tests/system
    else
        meson test -C "$VMFERRY_BUILD" --no-rebuild --suite "$suite" --print-errorlogs 2>&1 | tail -n 500
        cp "$VMFERRY_BUILD/meson-logs/testlog.json" "$logs/$suite.json"
    fi
done
/usr/bin/python3 tests/tally.py "$logs" "${suites[@]}"
