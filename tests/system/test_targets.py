# SPDX-License-Identifier: LGPL-2.1-or-later
"""Targets that can't be used are refused in words; nothing that was there is harmed."""
import os

import pytest
from world import Disk, IMAGES, PORTS, run, wait_for

RAW = f"{IMAGES}/vm1-d0.raw"


@pytest.fixture
def source(world):
    return world.source([Disk("raw")])


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


@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_target_with_data(world, format):
    source = world.source([Disk(format)])
    path = f"{IMAGES}/vm1-d0.{format}"
    source.guest.create_images(world.b)
    before = world.b.run("sha256sum", path).stdout
    refused(world, source, path, "data", "--overwrite")
    assert world.b.run("sha256sum", path).stdout == before


@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_target_with_data_is_overwritten_when_told_so(world, format):
    source = world.source([Disk(format)])
    path = world.b.path(f"{IMAGES}/vm1-d0.{format}")
    old = f"{world.lab.state}/old.raw"
    run("bash", "-c", f"tr '\\0' '\\252' </dev/zero | head -c 128M >{old}")
    run("qemu-img", "convert", "-f", "raw", "-O", format, old, path)
    destination = world.destination(source, create=False)
    world.assert_moved(source, destination, world.migrate(source, "--overwrite"))


@pytest.mark.parametrize("format", ["raw", "qcow2"])
@pytest.mark.parametrize("size", [64, 256])
def test_target_of_another_size(world, format, size):
    source = world.source([Disk(format)])
    path = f"{IMAGES}/vm1-d0.{format}"
    world.b.run("qemu-img", "create", "-q", "-f", format, path, f"{size}M")
    refused(world, source, path, "128 M|134217728", "size|is|MiB")
    assert world.b.image_files() == [f"vm1-d0.{format}"]


def test_block_device_that_is_too_small(world, source):
    device = world.b.block_device("small", 64)
    try:
        world.b.agent.configure(target_dirs=f"{IMAGES};{device}")
        world.b.agent.restart()
        refused(world, source, device, args=["--disk", f"d0={device}", "--overwrite"])
    finally:
        run("losetup", "-d", device)


def test_block_device_that_is_not_listed(world, source):
    device = world.b.block_device("unlisted", 128)
    try:
        refused(world, source, device, "target-dir", args=["--disk", f"d0={device}", "--overwrite"])
    finally:
        run("losetup", "-d", device)


@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_disk_full_in_mid_copy(world, format):
    source = world.source([Disk(format)])
    world.b.cap_images("40M")
    outcome = world.migrate(source)
    world.assert_failed(source, None, outcome, "hostB|vm1-d0", "space|full")
    assert world.b.image_files() == []  # what was created is removed


def test_no_room_for_the_preallocation(world, source):
    world.b.cap_images("40M")
    refused(world, source, "space|room|fit", args=["--disk", f"d0={RAW},prealloc=falloc"])
    assert world.b.image_files() == []


@pytest.mark.parametrize("argument, word", [
    ("d7=/x.raw", "d7"), (f"d0={RAW},format=vmdk9", "vmdk9"), (f"d0={RAW},color=red", "color")])
def test_disk_argument_that_means_nothing(world, source, argument, word):
    outcome = world.migrate(source, "--disk", argument)
    assert outcome.code in (1, 2) and word in outcome.message, outcome
    world.assert_at_source(source)
    world.assert_clean()


def test_two_disks_on_one_target(world):
    source = world.source()
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
    world.assert_failed(source, destination, outcome, "hostA|hostB", "492|port|time|answer")


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
