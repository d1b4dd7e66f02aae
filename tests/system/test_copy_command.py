# SPDX-License-Identifier: LGPL-2.1-or-later
"""`vmferry copy` as a command: usage, exit statuses, JSON, signals, the terminal, its limits."""
import fcntl
import json
import os
import pty
import re
import socket
import struct
import subprocess
import termios

import pytest

from copylink import Relay
from copyservers import Hostile, Nbdkit, QemuNbd, free_port
from copyworld import (MIB, VMFERRY, Copy, assert_absent, assert_alone, assert_same, copy,
                       journal, make_disk, part, signal)

SIZE = 8 * MIB
NUMBERS = ("size", "done_bytes", "read_bytes", "zero_bytes", "resumed_bytes", "verified_bytes",
           "reconnects", "rate")


@pytest.fixture
def source(here):
    return make_disk(f"{here}/source", SIZE)


@pytest.fixture
def served(here, source):
    with QemuNbd(here, source) as server:
        yield server


@pytest.mark.parametrize("words", (
    (), ("nbds://localhost/x",), ("nbds://localhost/x", "t", "more"), ("not-a-uri", "t"),
    ("http://localhost/", "t"), ("nbd+vsock://1/x", "t"), ("nbds://localhost:0/", "t"),
    ("nbds://localhost:70000/", "t"), ("nbds://localhost/%zz", "t"),
    ("nbds://localhost/x?tls-verify-peer=false", "t"), ("nbd+unix:///x", "t"),
    ("nbds://a:b@localhost/", "t"), ("nbd+unix:///?socket=/x&tls-certificates=/y", "t"),
    *(("nbd+unix:///?socket=/x", "t", *option) for option in (
        ("--connections", "0"), ("--connections", "17"), ("--connections", "x"), ("--rate", "0"),
        ("--rate", "fast"), ("--timeout", "0"), ("--timeout", "86401"), ("--bitmap", ""),
        ("--bitmap", "b" * 1024), ("--unknown",), ("--target-format", "nonsense")))))
def test_bad_usage(here, words):
    words = [f"{here}/t" if word == "t" else word for word in words]
    result = copy(*words)
    assert result.code == 2 and result.message, result
    assert_absent(f"{here}/t")


def test_clear_text_over_tcp_only_when_asked_for(here, source):
    target = f"{here}/target"
    with Nbdkit(here, "file", source, tcp=True) as server:
        copy(server.uri(), target).check(2, "--allow-plaintext")
        assert_absent(target)
        copy(server.uri(), target, "--allow-plaintext").check(0)
    assert_same(source, target)


def test_a_result_that_nobody_can_read_is_no_success(here, served):
    with open("/dev/full", "w") as full:
        result = subprocess.run([VMFERRY, "copy", served.uri(), "null:", "--json"], stdout=full,
                                stderr=subprocess.PIPE, text=True, timeout=60)
    assert result.returncode == 1 and "can't be written" in result.stderr, result


def test_json(here, served):
    with Relay(served, limit=3 * MIB) as link:
        first = Copy(link.uri(), f"{here}/target", "--verify")
        link.wait_stalled(first)
        event = first.wait_progress(2 * MIB)
        assert 2 * MIB <= event["read_bytes"] <= 3 * MIB and event["size"] == SIZE
        link.go_on()
        result = first.finish().check(0)
    for line in result.stdout.splitlines():
        json.loads(line)
    *events, last = result.lines
    assert events
    for event in events:
        assert event["event"] == "COPY_PROGRESS"
        assert event["phase"] in ("connecting", "copying", "flushing", "verifying", "done")
        assert all(isinstance(event[n], int) for n in NUMBERS)
    assert "event" not in last and all(isinstance(last[n], int) for n in NUMBERS)
    assert last["state"] == "done" and last["error"] is None and last["verified"] is True
    assert last["done_bytes"] == last["verified_bytes"] == last["size"] == SIZE
    assert last["uri"] == link.uri() and last["target"] == f"{here}/target"
    assert last["format"] == "raw" and last["total_s"] > 0
    failed = copy(served.uri("none"), f"{here}/other").check(1, "none")
    assert failed.result["state"] == "failed" and failed.result["verified"] is False


def test_the_report(here, served):
    done = subprocess.run([VMFERRY, "copy", served.uri(), f"{here}/target", "--verify"],
                          capture_output=True, text=True, timeout=60, check=True)
    report = {line[:11].strip(): line[11:] for line in done.stdout.splitlines()}
    assert report["result"] == "done" and report["size"] == "8.00 MiB", report
    assert report["target"] == f"{here}/target" and "reads back" in report["verified"]
    assert "skipped" in report["zeroes"] and "resumed" not in report


@pytest.mark.parametrize("number", (signal.SIGINT, signal.SIGTERM))
@pytest.mark.parametrize("fmt", ("raw", "qcow2"))
def test_signals_leave_what_resume_needs(here, source, served, number, fmt):
    """Also while qemu-nbd, which a terminal's Ctrl-C would end as well, is writing."""
    target = f"{here}/target"
    form = ("--target-format", fmt)
    with Relay(served, limit=3 * MIB) as link:
        first = Copy(link.uri(), target, *form)
        link.wait_stalled(first)
        first.signal(number)
        result = first.finish().check(130, "--resume")
        assert result.result["state"] == "cancelled"
        assert os.path.exists(part(target)) and os.path.exists(journal(target))
        assert not os.path.exists(target)
        link.go_on()
        again = copy(link.uri(), target, *form, "--resume", "--verify")
        again.check(2, "--verify")
        again = copy(link.uri(), target, *form, "--resume").check(0)
        assert again.result["resumed_bytes"] > 0
    if fmt == "raw":
        assert_same(source, target)
    assert_alone(target)


def test_a_signal_before_anything_was_copied_leaves_nothing(here, served):
    with Relay(served, limit=0) as link:
        first = Copy(link.uri(), f"{here}/target")
        link.wait_stalled(first)
        first.signal(signal.SIGINT)
        first.finish().check(130)
    assert_absent(f"{here}/target")


def test_a_terminal(here, served):
    """A bar that is drawn anew in its place, never wider than the terminal, gone at the end."""
    main, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 70, 0, 0))
    with Relay(served, limit=3 * MIB) as link:
        process = subprocess.Popen([VMFERRY, "copy", link.uri(), f"{here}/target"], stdin=end,
                                   stdout=end, stderr=end, env=dict(os.environ, TERM="xterm",
                                                                   LC_ALL="C.UTF-8"))
        os.close(end)
        shown = b""
        while not re.search(rb"copying +.*MiB of 8.00 MiB", shown):
            shown += os.read(main, 65536)
        link.go_on()
        with open(main, "rb", buffering=0) as f:
            try:
                while more := f.read(65536):
                    shown += more
            except OSError:  # the other end is closed
                pass
    assert process.wait(30) == 0
    text = shown.decode()
    lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line) for line in re.split(r"[\r\n]+", text)]
    assert "%" in text and "\x1b[" in text
    assert all(len(line) <= 70 for line in lines if "MiB of" in line), lines
    assert any(line.split() == ["result", "done"] for line in lines), lines


def test_the_rate_is_a_limit(here):
    """Only the lower bound of the time: a busy machine may take longer."""
    source = make_disk(f"{here}/source", 3 * MIB, density=1)
    with QemuNbd(here, source) as server:
        for connections in (1, 4):
            result = copy(server.uri(), f"{here}/target", "--rate", "2M", "--connections",
                          connections).check(0)
            read = result.result["read_bytes"]
            assert read <= (result.result["total_s"] + 0.6) * 2 * MIB, result
    assert_same(source, f"{here}/target")


def test_timeouts(here, served):
    target = f"{here}/target"
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(f"{here}/deaf")
        deaf.listen(1)
        copy(f"nbd+unix:///x?socket={here}/deaf", target, "--timeout", "1").check(1, "deaf")
    for fault in ("silent", "silent-greeting", "silent-option", "drip-option", "stall"):
        with Hostile(here, fault) as server:
            copy(server.uri(), target, "--timeout", "1").check(1, server.socket)
        assert not os.path.exists(target)
    with Relay(served, limit=3 * MIB) as link:
        copy(link.uri(), target, "--timeout", "1").check(1, "--resume", "no progress")
    copy(served.uri(), target, "--resume").check(0)


def test_a_slow_server_is_not_a_silent_one(here):
    """It takes longer than --timeout as a whole, but never stands still for so long."""
    source = make_disk(f"{here}/source", MIB, density=1)
    with Nbdkit(here, "file", source, "delay-read=400ms", "blocksize-maximum=256K",
                "blocksize-preferred=256K", filters=("blocksize-policy", "delay"),
                options=("-t", "1")) as server:
        result = copy(server.uri(), f"{here}/target", "--timeout", "1").check(0)
        assert result.result["total_s"] > 1
    assert_same(source, f"{here}/target")


def test_nobody_listens(here):
    port = free_port()
    target = f"{here}/target"
    copy(f"nbd://127.0.0.1:{port}/", target, "--allow-plaintext").check(1, str(port), "refused")
    copy(f"nbd+unix:///?socket={here}/none", target).check(1, f"{here}/none", "No such file")
    copy("nbd://none.invalid/", target, "--allow-plaintext").check(1, "none.invalid")
    assert_absent(target)


def test_help():
    done = subprocess.run([VMFERRY, "copy", "--help"], capture_output=True, text=True, check=True,
                          timeout=10)
    for word in ("--resume", "--verify", "--bitmap", "--rate", "--connections", "--timeout",
                 "--target-format", "--allow-plaintext", "--json", "130"):
        assert word in done.stdout, word
