# SPDX-License-Identifier: LGPL-2.1-or-later
"""What `vmferry copy` writes in place: block devices, NBD servers, images that a bitmap brings up
to date; and full file systems."""
import contextlib
import os
import random

import pytest

from copylink import Relay
from copyservers import Hostile, Nbdkit, NbdServer, QemuNbd, StorageDaemon
from copyworld import (KIB, MIB, Copy, assert_absent, assert_alone, assert_same,
                       assert_same_image, copy, journal, make_disk, mounted, part, run)

SIZE = 8 * MIB


@contextlib.contextmanager
def loop_device(path, size):
    """A block device full of old data, whose storage is `path`."""
    if not os.path.exists("/dev/loop-control"):
        pytest.skip("there are no loop devices")
    with open(path, "wb") as f:
        f.write(random.Random(7).randbytes(size))
    result = run("losetup", "-f", "--show", path, check=False)
    if result.returncode:
        pytest.skip(f"no loop device can be made: {result.stderr.strip()}")
    device = result.stdout.strip()
    try:
        yield device
    finally:
        run("losetup", "-d", device)


def unwritten_bytes(path):
    """Allocated, but nothing was ever written there."""
    lines = run("filefrag", "-v", "-b1", path).stdout.splitlines()
    return sum(int(line.split(":")[3]) for line in lines if "unwritten" in line)


@pytest.fixture
def state(here):
    return {"STATE_DIRECTORY": f"{here}/state"}


@pytest.fixture
def source(here):
    return make_disk(f"{here}/source", SIZE)


@pytest.fixture
def served(here, source):
    """By qemu-nbd: nbdkit 1.32 aborts when a client leaves before its answer."""
    with QemuNbd(here, source) as server:
        yield server


# ---- block devices ----

def test_a_device_is_exactly_the_export(here, source, served, state):
    storage = f"{here}/storage"
    with loop_device(storage, SIZE) as device:
        for more in ((), ("--verify",), ("--connections", "4")):
            copy(served.uri(), device, *more, env=state).check(0)
            run("cmp", source, device)
        assert os.path.getsize(storage) == SIZE
        assert not os.listdir(f"{here}/state/copies")


def test_zeroes_of_a_device_are_not_written(on_disk, served, state):
    """BLKZEROOUT, which a loop device on ext4 hands on as what it is."""
    with loop_device(f"{on_disk}/storage", SIZE) as device:
        run("sync", f"{on_disk}/storage")
        if run("stat", "-f", "-c", "%T", on_disk).stdout.strip() != "ext2/ext3":
            pytest.skip(f"{on_disk} is not on ext4")
        assert unwritten_bytes(f"{on_disk}/storage") == 0
        copy(served.uri(), device, env=state).check(0)
        run("sync", f"{on_disk}/storage")
        assert unwritten_bytes(f"{on_disk}/storage") > MIB


def test_a_larger_device_keeps_what_is_beyond(here, source, served, state):
    with loop_device(f"{here}/storage", SIZE + MIB) as device:
        copy(served.uri(), device, env=state).check(0)
        run("cmp", "-n", SIZE, source, device)
        with open(device, "rb") as f:
            f.seek(SIZE)
            assert f.read() == random.Random(7).randbytes(SIZE + MIB)[SIZE:]


def test_a_smaller_device_is_refused(here, served, state):
    with loop_device(f"{here}/storage", SIZE - MIB) as device:
        copy(served.uri(), device, env=state).check(1, device, "nothing was written", str(SIZE))
        with open(device, "rb") as f:
            assert f.read() == random.Random(7).randbytes(SIZE - MIB)


def test_a_busy_device_is_refused(here, served, state):
    with loop_device(f"{here}/storage", SIZE) as device:
        run("mkfs.ext4", "-q", device)
        os.mkdir(f"{here}/mnt")
        run("mount", device, f"{here}/mnt")
        try:
            copy(served.uri(), device, env=state).check(1, device, "in use")
        finally:
            run("umount", f"{here}/mnt")
        run("fsck.ext4", "-fn", device)
        with Relay(served, limit=MIB) as link:
            first = Copy(link.uri(), device, env=state)
            link.wait_stalled(first)
            copy(served.uri(), device, env=state).check(1, "in use")
            first.kill()


def test_a_device_through_a_link_and_formats(here, source, served, state):
    """As /dev/mapper has them: links that root made."""
    with loop_device(f"{here}/storage", SIZE) as device:
        os.symlink(device, f"{here}/link")
        copy(served.uri(), f"{here}/link", env=state).check(0)
        run("cmp", source, device)
        copy(served.uri(), device, "--target-format", "qcow2", env=state).check(2, "raw")
        os.lchown(f"{here}/link", 65534, 65534)
        copy(served.uri(), f"{here}/link", env=state).check(1, "link")


# ---- NBD servers ----

@pytest.mark.parametrize("kind", ("qemu-nbd", "nbdkit", "nbd-server"))
def test_an_nbd_server_as_the_target(here, source, served, kind):
    target = f"{here}/target"
    with open(target, "wb") as f:
        f.write(random.Random(3).randbytes(SIZE))
    server = QemuNbd(here, target, writable=True) if kind == "qemu-nbd" \
        else Nbdkit(here, "file", target) if kind == "nbdkit" \
        else NbdServer(here, target, writable=True)
    with server:
        copy(served.uri(), server.uri()).check(0)
        run("cmp", source, target)
        copy(served.uri(), server.uri(), "--verify", "--connections", "4").check(0)
    run("cmp", source, target)


def test_an_nbd_server_over_tls_as_the_target(here, source, served, credentials):
    target = make_disk(f"{here}/target", SIZE, seed=5)
    with QemuNbd(here, target, writable=True, tls=credentials.good) as server:
        copy(served.uri(), server.uri(), "--verify").check(0)
    run("cmp", source, target)


def test_nbd_servers_that_are_no_target(here, served, source):
    with Nbdkit(here, "memory", f"size={SIZE - 512}") as small, \
            QemuNbd(here, source) as read_only, \
            Nbdkit(here, "memory", f"size={SIZE}", "error-pwrite=ENOSPC", "error-pwrite-rate=100%",
                   filters=("error",)) as full:
        copy(served.uri(), small.uri()).check(1, "nothing was written", str(SIZE - 512))
        copy(served.uri(), read_only.uri()).check(1, "read-only")
        copy(served.uri(), full.uri()).check(1, "no space")
        copy(served.uri(), full.uri(), "--resume").check(2, "--resume")
        copy(served.uri(), "nbd://localhost:1/").check(2, "--allow-plaintext")
    copy(served.uri(), f"nbd+unix:///?socket={here}/none", "--timeout", "1").check(1, "none")
    copy(served.uri(), "nbd+unix:///").check(2, "socket=PATH")


def test_null(served):
    result = copy(served.uri(), "null:").check(0)
    assert result.result["size"] == SIZE and result.result["read_bytes"] > 0
    copy(served.uri(), "null:", "--verify").check(2, "--verify")
    copy(served.uri(), "null:", "--resume").check(2, "--resume")
    copy(served.uri(), "null:", "--bitmap", "b").check(2, "--bitmap")


# ---- bitmaps ----

@pytest.fixture
def changing(here, source):
    """A qcow2 image with a bitmap that has marked nothing yet."""
    image = f"{here}/changing.qcow2"
    run("qemu-img", "convert", "-O", "qcow2", source, image)
    run("qemu-img", "bitmap", "--add", "-g", "64k", image, "since")
    return image


def write(image, *commands):
    run("qemu-io", "-f", "qcow2", *(a for c in commands for a in ("-c", c)), image)


@pytest.mark.parametrize("fmt", ("raw", "qcow2"))
def test_a_bitmap_brings_a_copy_up_to_date(here, changing, fmt):
    target = f"{here}/target"
    form = ("--target-format", fmt)
    with QemuNbd(here, changing, fmt="qcow2", bitmap="since") as server:
        copy(server.uri(), target, *form).check(0)
    inode = os.stat(target).st_ino
    write(changing, "write -P 7 1M 128k", "write -z 5M 64k", f"write -P 9 {SIZE - 512} 512")
    with QemuNbd(here, changing, fmt="qcow2", bitmap="since") as server:
        result = copy(server.uri(), target, *form, "--bitmap", "since").check(0)
    assert 128 * KIB <= result.result["read_bytes"] <= 256 * KIB, result
    assert result.result["done_bytes"] == SIZE
    run("qemu-img", "convert", "-O", "raw", changing, f"{here}/now")
    assert_same_image(f"{here}/now", target, fmt, f"{here}/scratch")
    assert_alone(target)
    assert os.stat(target).st_ino == inode and not os.listxattr(target)


def test_a_bitmap_of_nothing_changes_nothing(here, changing):
    """It would be wrong to take the rest for zeroes: the target keeps its bytes."""
    target = make_disk(f"{here}/target", SIZE, seed=9)
    run("cp", target, f"{here}/before")
    with QemuNbd(here, changing, fmt="qcow2", bitmap="since") as server:
        result = copy(server.uri(), target, "--bitmap", "since").check(0)
    assert result.result["read_bytes"] == 0
    assert_same(f"{here}/before", target)


def test_bitmaps_that_cannot_be_used(here, changing, served):
    target = f"{here}/target"
    with QemuNbd(here, changing, fmt="qcow2", bitmap="since") as server:
        copy(server.uri(), target, "--bitmap", "since").check(1, "does not exist", target)
        assert_absent(target)
        make_disk(target, SIZE - 512, seed=9)
        copy(server.uri(), target, "--bitmap", "since").check(2, str(SIZE - 512), str(SIZE))
        make_disk(target, SIZE, seed=9)
        run("cp", target, f"{here}/before")
        copy(server.uri(), target, "--bitmap", "none").check(1, "none")
        copy(server.uri(), target, "--bitmap", "since", "--verify").check(2, "--verify")
    copy(served.uri(), target, "--bitmap", "since").check(1, "since")
    assert_same(f"{here}/before", target)
    assert_alone(target)


def test_a_bitmap_onto_a_device_and_a_server(here, changing, state):
    write(changing, "write -P 7 1M 128k", "write -z 5M 64k")
    run("qemu-img", "convert", "-O", "raw", changing, f"{here}/now")
    with QemuNbd(here, changing, fmt="qcow2", bitmap="since") as server:
        with loop_device(f"{here}/storage", SIZE) as device:
            run("dd", f"if={here}/source", f"of={device}", "bs=1M", "conv=fsync")
            copy(server.uri(), device, "--bitmap", "since", env=state).check(0)
            run("cmp", device, f"{here}/now")
        run("cp", f"{here}/source", f"{here}/target")
        with QemuNbd(here, f"{here}/target", writable=True) as target:
            copy(server.uri(), target.uri(), "--bitmap", "since").check(0)
        run("cmp", f"{here}/target", f"{here}/now")


# ---- no room ----

@pytest.mark.parametrize("fmt", ("raw", "qcow2"))
def test_a_full_file_system(here, fmt):
    """What was written is gone on with when there is room, or nothing stays."""
    source = make_disk(f"{here}/source", 48 * MIB, density=0.8)
    with mounted(f"{here}/small", "size=24M") as small, StorageDaemon(here, source) as server:
        target = f"{small}/target"
        form = ("--target-format", fmt)
        result = copy(server.uri(), target, *form).check(1, "space", target)
        assert not os.path.exists(target)
        assert ("--resume" in result.message) == os.path.exists(part(target)) \
            == os.path.exists(journal(target))
        run("mount", "-o", "remount,size=64M", small)
        again = copy(server.uri(), target, *form, "--resume").check(0)
        assert (again.result["resumed_bytes"] > 0) == ("--resume" in result.message)
        assert_same_image(source, target, fmt, f"{here}/scratch")
        assert_alone(target)


def test_no_room_for_anything(here, served):
    with mounted(f"{here}/small", "size=64k,nr_inodes=2") as small:
        old = f"{small}/target"
        with open(old, "wb") as f:
            f.write(b"old" * 1000)
        copy(served.uri(), old).check(1, old)
        assert open(old, "rb").read() == b"old" * 1000
        assert_alone(old)


def test_a_target_that_a_hostile_server_would_spoil(here):
    """A copy in place that fails is never called whole, and the message says where it failed."""
    target = make_disk(f"{here}/target", MIB)
    with Hostile(here, "eio", "--at", "2") as source, QemuNbd(here, target, writable=True) as server:
        copy(source.uri(), server.uri(), "--timeout", "2").check(1, "offset")
