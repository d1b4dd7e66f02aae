# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the tests of `vmferry copy` share: disks, the command, and what must be true afterwards."""
import contextlib
import json
import os
import random
import signal
import subprocess
import uuid

from copyservers import BUILD
from vmlab import run, wait_for
from world import NOISE

KIB, MIB, GIB, TIB = (1 << n for n in (10, 20, 30, 40))
VMFERRY = f"{BUILD}/daemon/vmferry"


def make_disk(path, size, seed=1, density=0.5):
    """Runs of data, of holes and of written zeroes; the last byte is data."""
    rand = random.Random(seed)
    with open(path, "wb") as f:
        f.truncate(size)
        at = 0
        while at < size:
            length = min(size - at, rand.choice((4, 4, 8, 64, 192, 512)) * KIB)
            kind = rand.random()
            if kind < density:
                f.seek(at)
                f.write(rand.randbytes(length))
            elif kind < density + 0.15:
                f.seek(at)
                f.write(bytes(length))
            at += length
        if size:
            f.seek(size - 1)
            f.write(b"\x5a")
    return path


def allocated(path):
    return os.stat(path).st_blocks * 512


class Result:
    def __init__(self, code, stdout, stderr, rss_kib):
        self.code, self.stdout, self.stderr, self.rss_kib = code, stdout, stderr, rss_kib
        self.lines = [json.loads(line) for line in stdout.splitlines() if line.startswith("{")]
        self.result = self.lines[-1] if self.lines else {}
        assert not NOISE.search(stderr), stderr
        assert code in (0, 1, 2, 130), self
        for c in stdout + stderr:
            assert c == "\n" or c.isprintable(), f"unescaped {c!r} in {stderr!r} {stdout!r}"

    def __repr__(self):
        return f"exit status {self.code}, {self.result}, stderr {self.stderr!r}"

    @property
    def message(self):
        return self.result.get("error") or (self.stderr.strip().splitlines() or [""])[-1]

    def check(self, code, *words):
        """The exit status, and one clear line that has all `words`."""
        assert self.code == code, self
        for word in words:
            assert word.lower() in self.message.lower(), f"no {word!r} in: {self}"
        if code:
            assert self.message and "\n" not in self.message, self
        return self


class Copy:
    """`vmferry copy --json` in the background."""

    def __init__(self, *args, prefix=(), env=None):
        self.mark = str(uuid.uuid4())
        argv = [*prefix, VMFERRY, "copy", *args, "--json"]
        environment = dict(os.environ, VMFERRY_TEST=self.mark, LC_ALL="C.UTF-8", **(env or {}))
        self.process = subprocess.Popen([str(a) for a in argv], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                        errors="surrogateescape", env=environment,
                                        start_new_session=True)
        self.seen = []

    def wait_progress(self, bytes_done, key="read_bytes"):
        """Until an event tells of so many bytes."""
        for line in self.process.stdout:
            self.seen.append(line)
            event = json.loads(line)
            if event.get(key, 0) >= bytes_done:
                return event
        raise AssertionError(f"the copy ended early: {self.finish()}")

    def signal(self, number):
        """To its children, too, as a terminal does it."""
        os.killpg(self.process.pid, number)

    def kill(self):
        """As a crash or the lack of memory would."""
        self.process.kill()
        self.process.communicate()
        wait_for(lambda: not self.others(), "children of a killed copy to end", 15)

    def others(self):
        """Processes that were begun by it, and what they are called with."""
        found = {}
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/environ", "rb") as f:
                    if f"VMFERRY_TEST={self.mark}".encode() in f.read():
                        found[int(pid)] = open(f"/proc/{pid}/cmdline").read()
            except OSError:
                pass
        return found

    def finish(self, timeout=60):
        rss = 0
        try:
            out, err = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            stacks = run("gdb", "-p", self.process.pid, "-batch", "-ex", "thread apply all bt",
                         check=False).stdout[-6000:] if os.path.exists("/usr/bin/gdb") else ""
            self.process.kill()
            out, err = self.process.communicate()
            raise AssertionError(f"no end after {timeout} s: {err} {''.join(self.seen)}{out}\n{stacks}")
        assert not self.others(), self.others()
        return Result(self.process.returncode, "".join(self.seen) + out, err, rss)


def copy(*args, timeout=60, **more):
    return Copy(*args, **more).finish(timeout)


def copy_measured(*args, timeout=60):
    """The same with the peak of its memory."""
    log = f"/tmp/vmferry-rss-{uuid.uuid4()}"
    try:
        result = copy(*args, timeout=timeout, prefix=("/usr/bin/python3", "-c", MEASURE, log))
        result.rss_kib = 0 if is_sanitized() else int(open(log).read())
        return result
    finally:
        if os.path.exists(log):
            os.unlink(log)


def is_sanitized():
    """The memory of such a program says nothing."""
    with open(VMFERRY, "rb") as f:
        return b"__asan_init" in f.read()


MEASURE = ("import os, resource, subprocess, sys\n"
           "code = subprocess.call(sys.argv[2:])\n"
           "usage = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
           "open(sys.argv[1], 'w').write(str(usage.ru_maxrss))\n"
           "sys.exit(code if code >= 0 else 128 - code)\n")


def assert_same(source, target):
    """To the byte, and without extra bytes."""
    assert os.path.getsize(source) == os.path.getsize(target), \
        (os.path.getsize(source), os.path.getsize(target))
    result = run("cmp", source, target, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def assert_same_image(source, target, fmt, scratch):
    """The same for an image of another format, whose size is whole sectors."""
    run("qemu-img", "convert", "-f", fmt, "-O", "raw", target, scratch)
    size = os.path.getsize(source)
    assert size <= os.path.getsize(scratch) < size + 512 + (size == 0), os.path.getsize(scratch)
    with open(scratch, "rb") as f:
        f.seek(size)
        assert not f.read().strip(b"\0")
    os.truncate(scratch, size)
    assert_same(source, scratch)


def assert_sparse(source, target):
    """No more is allocated than the data there is, and a little."""
    data = sum(1 for block in blocks(source) if block.strip(b"\0")) * 4096
    assert allocated(target) <= data + 256 * KIB, (allocated(target), data)


def blocks(path):
    with open(path, "rb") as f:
        while block := f.read(4096):
            yield block


def assert_alone(target):
    """Nothing is left beside it."""
    name = os.path.basename(target)
    rest = [f for f in os.listdir(os.path.dirname(target)) if f.startswith(name) and f != name]
    assert not rest, rest


def assert_absent(target):
    assert not os.path.lexists(target)
    assert_alone(target)


@contextlib.contextmanager
def mounted(directory, options):
    """A small file system of its own."""
    os.makedirs(directory)
    run("mount", "-t", "tmpfs", "-o", options, "none", directory)
    try:
        yield directory
    finally:
        run("umount", directory)


def part(target):
    return f"{target}.vmferry-part"


def journal(target):
    return f"{target}.vmferry-journal"


__all__ = ["Copy", "GIB", "KIB", "MIB", "Result", "TIB", "allocated", "assert_absent",
           "assert_alone", "assert_same", "assert_same_image", "assert_sparse", "copy",
           "copy_measured", "journal", "make_disk", "mounted", "part", "run", "signal", "wait_for"]
