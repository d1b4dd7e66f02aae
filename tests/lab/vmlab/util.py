# SPDX-License-Identifier: LGPL-2.1-or-later
"""What all parts of the lab use: commands, waiting."""
import subprocess
import time


class LabError(RuntimeError):
    """The lab itself (not what is tested in it) doesn't work."""


def run(*argv, check=True, timeout=120, **more):
    """Runs a command; what it printed is in .stdout and .stderr."""
    result = subprocess.run([str(a) for a in argv], capture_output=True, text=True,
                            stdin=subprocess.DEVNULL, timeout=timeout, **more)
    if check and result.returncode:
        raise LabError(f"{' '.join(map(str, argv))}: exit status {result.returncode}: "
                       f"{result.stderr.strip()} {result.stdout.strip()}")
    return result


def wait_for(condition, what, timeout=30, interval=0.02):
    """Returns the first true value of condition(); fails after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise LabError(f"waited {timeout} s in vain for {what() if callable(what) else what}")
        time.sleep(interval)
