#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""tally.py LOGS SUITE...: counts what the suites' machine-readable logs say (SUITE.json of meson,
system.xml of pytest). A suite that left no log, or ran nothing, counts as one failure."""
import json
import os
import re
import sys
import xml.etree.ElementTree as ElementTree

TAP = re.compile(r"^(not )?ok\b[^#\n]*(# *skip)?", re.IGNORECASE | re.MULTILINE)


def meson_test(test):
    """(passed, failed, skipped) of one program; each TAP line counts."""
    counts = [0, 0, 0]
    for failed, skipped in TAP.findall(test.get("stdout", "")):
        counts[2 if skipped else 1 if failed else 0] += 1
    if test["result"] in ("FAIL", "ERROR", "TIMEOUT", "INTERRUPT", "UNEXPECTEDPASS"):
        counts[1] = counts[1] or 1
    elif sum(counts) == 0:
        counts[2 if test["result"] == "SKIP" else 0] = 1
    return counts


def meson_log(path):
    return [meson_test(json.loads(line)) for line in open(path) if line.strip()]


def pytest_log(path):
    cases = ElementTree.parse(path).iter("testcase")
    return [(0, 0, 1) if case.find("skipped") is not None else
            (0, 1, 0) if case.find("failure") is not None or case.find("error") is not None else
            (1, 0, 0) for case in cases]


def main(logs, *suites):
    total = [0, 0, 0]
    for suite in suites:
        read, path = ((pytest_log, f"{logs}/{suite}.xml") if suite == "system"
                      else (meson_log, f"{logs}/{suite}.json"))
        counts = read(path) if os.path.exists(path) else []
        if not any(passed or failed for passed, failed, _ in counts):
            print(f"suite {suite} ran nothing")
            counts.append((0, 1, 0))
        total = [a + sum(b) for a, b in zip(total, zip(*counts))]
    print("%d passed, %d failed, %d skipped" % tuple(total))
    return 1 if total[1] or not total[0] else 0


sys.exit(main(*sys.argv[1:]))
