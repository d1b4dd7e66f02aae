# SPDX-License-Identifier: LGPL-2.1-or-later
"""Targets that can't be used are refused in words; nothing that was there is harmed."""
import os
import signal

import pytest
from world import IMAGES, PORTS, run, wait_for

RAW, QCOW2 = f"{IMAGES}/vm1-d0.raw", f"{IMAGES}/vm1-d1.qcow2"
BOTH = pytest.mark.parametrize("path, format", [(RAW, "raw"), (QCOW2, "qcow2")],
                               ids=["raw", "qcow2"])


@pytest.fixture
def source(world):
    """One guest with a disk of each format, 64 MiB, for all that is refused."""
    return world.source()


def refused(world, source, *words, args=(), destination=None):
    outcome = world.migrate(source, *args)
    world.assert_failed(source, destination, outcome, *words)


@pytest.mark.parametrize("path", ["/etc/shadow", "/tmp/vm1.raw", f"{IMAGES}/../x.raw",
                                  f"{IMAGES}-other/x.raw"])
def test_directory_that_is_not_allowed(world, source, path):
    refused(world, source, "hostB", "target-dir|absolute|\\.\\.", args=["--disk", f"d0={path}"])
    assert world.b.image_files() == []


def test_symbolic_link_out_of_it(world, source):
    world.b.run("mkdir", "-p", "/run/elsewhere")
    world.b.run("ln", "-s", "/run/elsewhere", f"{IMAGES}/out")
    world.b.run("ln", "-s", "/run/elsewhere/vm1.raw", f"{IMAGES}/link.raw")
    refused(world, source, "link", args=["--disk", f"d0={IMAGES}/out/vm1.raw"])
    refused(world, source, "link", args=["--disk", f"d0={IMAGES}/link.raw"])
    assert world.b.run("ls", "/run/elsewhere").stdout == ""


@BOTH
def test_target_with_data(world, source, path, format):
    source.guest.create_images(world.b)
    world.b.run("rm", RAW if path == QCOW2 else QCOW2)
    before = world.b.run("sha256sum", path).stdout
    refused(world, source, path, "data", "--overwrite")
    assert world.b.run("sha256sum", path).stdout == before


def test_targets_with_data_are_overwritten_when_told_so(world, source):
    old = f"{world.lab.state}/old.raw"
    run("bash", "-c", f"tr '\\0' '\\252' </dev/zero | head -c 64M >{old}")
    for path, format in ((RAW, "raw"), (QCOW2, "qcow2")):
        run("qemu-img", "convert", "-f", "raw", "-O", format, old, world.b.path(path))
    destination = world.destination(source, create=False)
    world.assert_moved(source, destination, world.migrate(source, "--overwrite"))


@BOTH
@pytest.mark.parametrize("mb", [32, 128])
def test_target_of_another_size(world, source, path, format, mb):
    world.b.run("qemu-img", "create", "-q", "-f", format, path, f"{mb}M")
    refused(world, source, path, "67108864", str(mb << 20), "--overwrite")
    assert world.b.image_files() == [os.path.basename(path)]


def fill_half_way(world, source):
    """A migration that has put data into both targets, which were there before."""
    world.slow("200mbit")
    migration = world.start(source)
    wait_for(lambda: all(used_mb(world, path) > 2 for path in (RAW, QCOW2)), "data in the targets")
    return migration


def used_mb(world, path):
    return os.stat(world.b.path(path)).st_blocks / 2048


def test_empty_targets_are_empty_again_after_a_failure(world, source):
    """Else the next attempt would find data in them, and be refused."""
    source.guest.create_targets(world.b)
    inodes = [os.stat(world.b.path(path)).st_ino for path in (RAW, QCOW2)]
    migration = fill_half_way(world, source)
    migration.signal(signal.SIGINT)
    migration.finish().check(130)
    assert max(used_mb(world, RAW), used_mb(world, QCOW2)) < 1
    migration = fill_half_way(world, source)
    world.b.agent.kill()
    world.b.agent.start()  # it finds them in its journal
    world.assert_failed(source, None, migration.finish())
    assert max(used_mb(world, RAW), used_mb(world, QCOW2)) < 1
    assert inodes == [os.stat(world.b.path(path)).st_ino for path in (RAW, QCOW2)]
    world.slow("unlimited")
    destination = world.destination(source, create=False)
    world.assert_moved(source, destination, world.migrate(source))


def test_block_device_that_is_too_small(world, source):
    device = world.b.block_device("small", 32)
    try:
        world.b.agent.configure(target_dirs=f"{IMAGES};{device}")
        world.b.agent.restart()
        refused(world, source, device, args=["--disk", f"d0={device}", "--overwrite"])
    finally:
        run("losetup", "-d", device)


def test_block_device_that_is_not_listed(world, source):
    device = world.b.block_device("unlisted", 64)
    try:
        refused(world, source, device, "target-dir", args=["--disk", f"d0={device}", "--overwrite"])
    finally:
        run("losetup", "-d", device)


@BOTH
def test_disk_full_in_mid_copy(world, source, path, format):
    """The other disk goes to where there is room."""
    world.b.cap_images("30M")
    world.b.agent.configure(target_dirs=f"{IMAGES};/run/vmlab")
    world.b.agent.restart()
    other = "d1" if path == RAW else "d0"
    outcome = world.migrate(source, "--disk", f"{other}=/run/vmlab/other")
    world.assert_failed(source, None, outcome, "hostB", path, "no space")
    assert world.b.image_files() == []  # what was created is removed
    assert "other" not in world.b.run("ls", "/run/vmlab").stdout.split()


def test_no_room_for_the_preallocation(world, source):
    world.b.cap_images("40M")
    refused(world, source, RAW, "67108864", "make room", args=["--disk", f"d0={RAW},prealloc=falloc"])
    assert world.b.image_files() == []


@pytest.mark.parametrize("argument, word", [
    ("d7=/x.raw", "d7"), (f"d0={RAW},format=vmdk9", "vmdk9"), (f"d0={RAW},color=red", "color")])
def test_disk_argument_that_means_nothing(world, source, argument, word):
    outcome = world.migrate(source, "--disk", argument)
    assert outcome.code in (1, 2) and word in outcome.message, outcome
    world.assert_at_source(source)
    world.assert_clean()


def test_two_disks_on_one_target(world, source):
    path = f"{IMAGES}/same.raw"
    outcome = world.migrate(source, "--disk", f"d0={path},format=raw",
                            "--disk", f"d1={path},format=raw")
    assert outcome.code in (1, 2), outcome
    world.assert_at_source(source)
    world.assert_clean()
    assert world.b.image_files() == []


@pytest.mark.parametrize("host", ["a", "b"])
def test_ports_that_a_firewall_drops(world, source, host):
    """At hostA that is the port of the NBD server, at hostB that of the memory."""
    world.link.block_ports(getattr(world, host), "%d:%d" % PORTS)
    destination = world.destination(source)
    outcome = world.migrate(source, "--timeout", "4")
    world.assert_failed(source, destination, outcome, "hostA|hostB", "cannot connect to 198.18.0.[12]:492", "timed out")


def test_no_port_is_free(world, source):
    for host in world.lab.hosts:
        host.agent.configure(ports="49216-49216")
        host.agent.restart()
    hog = world.a.popen("/usr/bin/python3", "-c", "import socket, time\n"
                        "s = socket.create_server(('', 49216)); time.sleep(1000)")
    wait_for(lambda: 49216 in world.a.listening(), "the hog to listen")
    try:
        world.migrate(source).check(1, "49216")
    finally:
        os.kill(world.a.inner_pid(hog), 9)
        hog.wait()
    world.assert_at_source(source)
    world.assert_clean()
