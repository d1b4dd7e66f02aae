# SPDX-License-Identifier: LGPL-2.1-or-later
"""Copies that are interrupted, and gone on with only where they are provably the same."""
import os

import pytest

from copylink import Relay
from copyservers import QemuNbd, StorageDaemon
from copyworld import (KIB, MIB, Copy, assert_absent, assert_alone, assert_same, assert_same_image,
                       copy, journal, make_disk, mounted, part, run, signal, wait_for)
from test_copy_places import loop_device

SIZE = 48 * MIB
MAX_LOST = 64 * MIB
MAX_SAMPLE = 64 * MIB


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    return make_disk(str(tmp_path_factory.mktemp("source") / "disk.raw"), SIZE, density=0.7)


@pytest.fixture
def source(here, disk):
    run("cp", "--sparse=always", disk, f"{here}/source")
    return f"{here}/source"


@pytest.fixture
def link(here, source):
    with QemuNbd(here, source) as server, Relay(server) as link:
        yield link


def interrupt(link, target, *args, at=24 * MIB, env=None, log=None):
    """Kills a copy when so many bytes have come, of which some are durable."""
    log = log or journal(target)
    link.renew(at)
    first = Copy(link.uri(), target, *args, env=env)
    link.wait_stalled(first)
    wait_for(lambda: os.path.exists(log) and b'"left"' in open(log, "rb").read(), "a checkpoint")
    first.kill()
    link.renew()
    return first


def resume(link, target, *args, env=None):
    """And it does go on."""
    again = copy(link.uri(), target, "--resume", *args, env=env).check(0)
    assert again.result["resumed_bytes"] > 0, again
    assert "starting over" not in again.stderr
    return again


def start_over(link, target, *reasons, args=()):
    """It says why it doesn't go on, and is right in the end."""
    again = copy(link.uri(), target, "--resume", *args).check(0)
    assert again.result["resumed_bytes"] == 0, again
    for reason in reasons:
        assert reason in again.stderr, again
    assert_alone(target)
    return again


@pytest.mark.parametrize("fmt", ("raw", "qcow2"))
@pytest.mark.parametrize("more", ((), ("--verify",), ("--connections", "4")))
def test_killed_at_many_points(here, source, link, fmt, more):
    """From the handshake on, one kill after the other, until it is whole."""
    target = f"{here}/target"
    args = ("--target-format", fmt, *more)
    kills = 0
    for at in (0, 10, 300, 70 * KIB, MIB, 6 * MIB, 17 * MIB, 23 * MIB, 2 * MIB, 14 * MIB):
        link.renew(at)
        killed = Copy(link.uri(), target, *args, "--resume")
        wait_for(lambda: link.stalled or killed.process.poll() is not None, "a good moment")
        assert not os.path.exists(target) or not link.stalled
        kills += killed.process.poll() is None
        killed.kill()
        if os.path.exists(target):
            break
    link.renew()
    copy(link.uri(), target, *args, "--resume").check(0)
    assert kills >= 8
    assert_same_image(source, target, fmt, f"{here}/scratch")
    assert_alone(target)


@pytest.mark.parametrize("fmt", ("raw", "qcow2"))
def test_killed_and_gone_on_with(here, source, link, fmt):
    target = f"{here}/target"
    form = ("--target-format", fmt)
    interrupt(link, target, *form)
    assert os.path.exists(part(target)) and not os.path.exists(target)
    again = resume(link, target, *form)
    assert again.result["resumed_bytes"] + again.result["read_bytes"] \
        + again.result["zero_bytes"] >= SIZE
    assert_same_image(source, target, fmt, f"{here}/scratch")
    assert_alone(target)


def test_without_resume_it_begins_anew(here, source, link):
    target = f"{here}/target"
    interrupt(link, target)
    result = copy(link.uri(), target).check(0)
    assert result.result["resumed_bytes"] == 0
    assert_same(source, target)
    assert_alone(target)


def test_resume_of_nothing(here, source, link):
    target = f"{here}/target"
    start_over(link, target, "nothing of an earlier copy")
    assert_same(source, target)
    start_over(link, target, "nothing of an earlier copy")
    assert_same(source, target)


@pytest.mark.parametrize("number", (signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP))
def test_qemu_nbd_of_the_target_is_killed(here, source, link, number):
    """Or ends, or hangs: the copy says so, and goes on from its last checkpoint."""
    target = f"{here}/target"
    form = ("--target-format", "qcow2")
    link.renew(24 * MIB)
    first = Copy(link.uri(), target, *form, "--timeout", "2")
    link.wait_stalled(first)
    wait_for(lambda: b'"left"' in open(journal(target), "rb").read(), "a checkpoint")
    server = next(pid for pid, name in first.others().items() if name.startswith("qemu-nbd"))
    os.kill(server, number)
    link.go_on()
    first.finish().check(1, "--resume", target)
    assert not os.path.exists(target)
    link.renew()
    resume(link, target, *form)
    assert_same_image(source, target, "qcow2", f"{here}/scratch")
    assert_alone(target)


def test_at_most_128_mib_are_read_again(here):
    """For real: what comes over the network is counted."""
    source, target = f"{here}/source", f"{here}/target"
    with open(source, "wb") as f:
        for _ in range(320):
            f.write(os.urandom(MIB))
    size = os.path.getsize(source)
    for more in ((), ("--connections", "4")):
        with StorageDaemon(here, source) as server, Relay(server, limit=280 * MIB) as link:
            first = Copy(link.uri(), target, *more)
            link.wait_stalled(first)
            first.kill()
            before = link.bytes
            link.renew()
            again = resume(link, target, *more)
            assert again.result["read_bytes"] + before <= size + MAX_LOST + MIB
            assert before + link.bytes <= size + MAX_LOST + MAX_SAMPLE + 2 * MIB
        assert_same(source, target)
        os.unlink(target)


# ---- the link ----

def test_a_cut_link_is_mended(here, source, link):
    target = f"{here}/target"
    for more in ((), ("--connections", "4"), ("--verify",)):
        link.renew(20 * MIB)
        first = Copy(link.uri(), target, *more)
        link.wait_stalled(first)
        link.cut()
        result = first.finish().check(0)
        assert result.result["reconnects"] >= 1 and "connected again" in result.stderr
        assert_same(source, target)
        assert result.result["read_bytes"] <= SIZE + MIB


def test_a_server_that_starts_again(here, source, link):
    """Its socket is away for a while."""
    target = f"{here}/target"
    link.renew(20 * MIB)
    first = Copy(link.uri(), target, "--timeout", "60")
    link.wait_stalled(first)
    link.server.stop()
    link.cut()
    link.server.start()
    result = first.finish().check(0)
    assert result.result["reconnects"] >= 1
    assert_same(source, target)


def test_a_server_that_stays_away(here, source, link):
    target = f"{here}/target"
    link.renew(20 * MIB)
    first = Copy(link.uri(), target, "--timeout", "1")
    link.wait_stalled(first)
    link.server.stop()
    link.cut()
    first.finish().check(1, "--resume", "1.0 s")
    assert not os.path.exists(target)
    link.server.start()
    resume(link, target)
    assert_same(source, target)


def test_a_server_that_comes_back_with_something_else(here, source, link):
    """Another size, or other data: never a mixture of both."""
    target = f"{here}/target"
    for other, word in ((lambda: make_disk(source, SIZE, seed=2, density=0.7), "not what they were"),
                        (lambda: os.truncate(source, SIZE - MIB), "not the export")):
        link.renew(20 * MIB)
        first = Copy(link.uri(), target, "--timeout", "60")
        link.wait_stalled(first)
        link.server.stop()
        other()
        link.cut()
        link.server.start()
        first.finish().check(1, word)
        assert not os.path.exists(target)


# ---- what must not be gone on with ----

def test_another_source(here, source, link):
    target = f"{here}/target"
    interrupt(link, target)
    make_disk(source, SIZE, seed=2, density=0.7)
    link.server.restart()
    start_over(link, target, "starting over", "not what they were")
    assert_same(source, target)


def test_another_size_name_or_format(here, source, link):
    target = f"{here}/target"
    interrupt(link, target)
    os.truncate(source, SIZE + MIB)
    link.server.restart()
    start_over(link, target, "starting over", f"{SIZE} bytes", f"{SIZE + MIB}")
    assert_same(source, target)
    interrupt(link, target)
    with QemuNbd(here, source, name="other") as server:
        again = copy(server.uri(), target, "--resume").check(0)
    assert again.result["resumed_bytes"] == 0 and "it was a copy of" in again.stderr
    interrupt(link, target)
    start_over(link, target, "format was raw", args=("--target-format", "qcow2"))
    assert_same_image(source, target, "qcow2", f"{here}/scratch")


def test_a_changed_target(here, source, link):
    target = f"{here}/target"
    interrupt(link, target)
    with open(part(target), "r+b") as f:
        f.write(bytes(16 * MIB))
    start_over(link, target, "starting over", part(target))
    assert_same(source, target)
    interrupt(link, target)
    os.truncate(part(target), SIZE - 1)
    start_over(link, target, "starting over", "its size")
    assert_same(source, target)
    interrupt(link, target)
    os.unlink(part(target))
    start_over(link, target, "nothing of an earlier copy")
    assert_same(source, target)


def test_a_replaced_target(here, source, link):
    """It isn't ours any more, and stays."""
    target = f"{here}/target"
    interrupt(link, target)
    run("cp", "--sparse=always", part(target), f"{here}/replacement")
    os.rename(f"{here}/replacement", part(target))
    copy(link.uri(), target, "--resume").check(1, "is in the way")
    assert not os.path.exists(target) and os.path.exists(part(target))


def test_an_image_that_was_changed(here, source, link):
    target = f"{here}/target"
    form = ("--target-format", "qcow2")
    interrupt(link, target, *form)
    run("qemu-io", "-f", "qcow2", "-c", "write -P 1 0 16M", part(target))
    start_over(link, target, "starting over", part(target), args=form)
    assert_same_image(source, target, "qcow2", f"{here}/scratch")


@pytest.mark.parametrize("damage", ("flip", "swap", "garbage", "empty", "gone", "foreign"))
def test_a_damaged_journal(here, source, link, damage):
    target = f"{here}/target"
    interrupt(link, target)
    lines = open(journal(target), "rb").readlines()
    assert len(lines) > 1
    text = {"flip": lines[0].replace(b"raw", b"rau") + b"".join(lines[1:]),
            "swap": b"".join(reversed(lines)), "garbage": os.urandom(5000) + b"\n" + b"x\n",
            "empty": b"", "gone": None, "foreign": b"#!/bin/sh\n" * 10}[damage]
    os.unlink(journal(target))
    if text is not None:
        with open(journal(target), "wb") as f:
            f.write(text)
    start_over(link, target, journal(target) if text else "")
    assert_same(source, target)


def test_a_torn_journal(here, source, link):
    """As a crash in the middle of a record leaves it: what was whole before counts."""
    target = f"{here}/target"
    interrupt(link, target)
    with open(journal(target), "ab") as f:
        f.write(b'0123456789abcdef {"record": "left", "ra')
    resume(link, target)
    assert_same(source, target)
    assert_alone(target)


def test_a_journal_that_others_may_have_written(here, source, link):
    target = f"{here}/target"
    interrupt(link, target)
    os.chown(journal(target), 65534, 65534)
    copy(link.uri(), target, "--resume").check(1, journal(target))
    assert not os.path.exists(target) and os.path.exists(journal(target))


# ---- other targets ----

def test_a_device(here, source, link):
    state = {"STATE_DIRECTORY": f"{here}/state"}
    with loop_device(f"{here}/storage", SIZE) as device:
        number = os.stat(device).st_rdev
        log = f"{here}/state/copies/device-{os.major(number)}-{os.minor(number)}.vmferry-journal"
        interrupt(link, device, env=state, log=log)
        assert os.path.exists(log)
        resume(link, device, env=state)
        run("cmp", source, device)
        assert not os.listdir(f"{here}/state/copies")
        interrupt(link, device, env=state, log=log)
        run("dd", "if=/dev/zero", f"of={device}", "bs=1M", "count=16", "conv=fsync")
        again = copy(link.uri(), device, "--resume", env=state).check(0)
        assert again.result["resumed_bytes"] == 0 and "starting over" in again.stderr
        run("cmp", source, device)


def test_a_full_file_system_and_then_room(here, source, link):
    with mounted(f"{here}/small", "size=24M") as small:
        target = f"{small}/target"
        copy(link.uri(), target).check(1, "space", "--resume")
        assert not os.path.exists(target)
        copy(link.uri(), target, "--resume").check(1, "space", "--resume")
        run("mount", "-o", "remount,size=100M", small)
        resume(link, target)
        assert_same(source, target)
        assert_alone(target)


def test_a_bitmap_copy(here, source):
    """Into a file that is there: no part file, but a journal."""
    image, target = f"{here}/image", f"{here}/target"
    run("qemu-img", "convert", "-O", "qcow2", source, image)
    run("qemu-img", "bitmap", "--add", image, "since")
    run("cp", source, target)
    run("qemu-io", "-f", "qcow2", "-c", "write -P 5 0 40M", image)
    with QemuNbd(here, image, fmt="qcow2", bitmap="since") as server, Relay(server) as link:
        interrupt(link, target, "--bitmap", "since")
        again = resume(link, target, "--bitmap", "since")
        assert again.result["read_bytes"] < 40 * MIB
    run("qemu-img", "convert", "-O", "raw", image, f"{here}/now")
    assert_same(f"{here}/now", target)
    assert_alone(target)


# ---- verification ----

@pytest.mark.parametrize("fmt", ("raw", "qcow2"))
def test_a_verified_copy_is_gone_on_with(here, source, link, fmt):
    target = f"{here}/target"
    args = ("--target-format", fmt, "--verify")
    interrupt(link, target, *args)
    again = resume(link, target, *args)
    assert again.result["verified"] is True and again.result["verified_bytes"] == SIZE
    assert_same_image(source, target, fmt, f"{here}/scratch")


def test_digests_cannot_be_had_afterwards(here, source, link):
    target = f"{here}/target"
    interrupt(link, target)
    copy(link.uri(), target, "--resume", "--verify").check(2, "without --verify")
    resume(link, target)
    assert_same(source, target)


def alter(path, offset):
    """One byte."""
    with open(path, "r+b") as f:
        f.seek(offset)
        old = f.read(1)
        f.seek(offset)
        f.write(bytes((old[0] ^ 0xff,)))


def test_verification_finds_a_changed_byte(here, source, link):
    target = f"{here}/target"
    link.renew(30 * MIB)
    first = Copy(link.uri(), target, "--verify")
    link.wait_stalled(first)
    alter(part(target), 5 * MIB + 77)
    link.go_on()
    first.finish().check(1, part(target))
    assert_absent(target)


def test_verification_finds_what_was_changed_between_runs(here, source, link):
    """Where there was a hole: no sample of data is there."""
    target = f"{here}/target"
    with open(source, "rb") as f:
        hole = os.lseek(f.fileno(), 0, os.SEEK_HOLE)
    assert hole < MIB
    interrupt(link, target, "--verify")
    alter(part(target), hole + 5)
    copy(link.uri(), target, "--resume", "--verify").check(1, part(target))
    assert_absent(target)
