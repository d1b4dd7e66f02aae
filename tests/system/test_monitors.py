# SPDX-License-Identifier: LGPL-2.1-or-later
"""Monitors and QEMUs that aren't what a migration needs, at the source and at the destination."""
import os
import socket

import pytest
from world import Disk, Guest, IMAGES, Outcome, wait_for


def migrate(world, source, qmp=None, dest_qmp="/run/vmlab/vm1-in.qmp", timeout=None):
    done = world.a.agent.vmferry("migrate", "vm1", "hostB", "--json", "--qmp", qmp or source.socket,
                                 "--dest-qmp", dest_qmp, *(["--timeout", timeout] if timeout else []))
    return Outcome(done.returncode, done.stdout, done.stderr)


def not_qemu(host, path, what):
    """Something that listens on a UNIX socket and isn't QEMU."""
    process = host.popen("/usr/bin/python3", "-c", f"""
import socket, time
s = socket.socket(socket.AF_UNIX); s.bind({path!r}); s.listen()
keep = []
while True:
    c, _ = s.accept(); keep.append(c)
    try:
        c.sendall({what})
    except OSError:
        pass
""")
    wait_for(lambda: os.path.exists(host.path(path)), "the socket")
    return process


def end(host, process, path):
    os.kill(host.inner_pid(process), 9)
    process.wait()
    host.run("rm", "-f", path)


def test_no_monitor_at_the_source(world):
    source = world.source()
    outcome = migrate(world, source, qmp="/run/vmlab/none.qmp")
    world.assert_failed(source, None, outcome, "/run/vmlab/none.qmp", "no such")


def test_monitor_in_use_at_the_source(world):
    source = world.source()
    with socket.socket(socket.AF_UNIX) as other:
        other.connect(world.a.path(source.socket))
        other.recv(4096)
        outcome = migrate(world, source)
    world.assert_failed(source, None, outcome, source.socket, "another client|in use")


@pytest.mark.parametrize("what", [
    "b''", "b'220 mail ESMTP\\r\\n'", "b'{}\\n'", "b'[' * 1000000 + b'\\n'", "b'x' * 100000000",
    """b'{"QMP": {"version": 7}}\\n'"""], ids=["silent", "smtp", "empty", "deep", "endless", "odd"])
def test_not_qemu_at_the_source(world, what):
    source = world.source()
    process = not_qemu(world.a, "/run/vmlab/odd.qmp", what)
    try:
        outcome = migrate(world, source, qmp="/run/vmlab/odd.qmp", timeout="4")
    finally:
        end(world.a, process, "/run/vmlab/odd.qmp")
    world.assert_failed(source, None, outcome, "/run/vmlab/odd.qmp")


def test_no_monitor_at_the_destination(world):
    """It may still appear until the cutover; then it is missed."""
    source = world.source()
    outcome = migrate(world, source, timeout="5")
    world.assert_failed(source, None, outcome, "hostB", "/run/vmlab/vm1-in.qmp")
    assert world.b.image_files() == []


def test_monitor_in_use_at_the_destination(world):
    source, destination = world.pair()
    with socket.socket(socket.AF_UNIX) as other:
        other.connect(world.b.path(destination.socket))
        other.recv(4096)
        outcome = migrate(world, source, timeout="5")
    world.assert_failed(source, destination, outcome, destination.socket, "another client|in use")


def test_not_qemu_at_the_destination(world):
    source = world.source()
    process = not_qemu(world.b, "/run/vmlab/odd.qmp", "b'220 mail ESMTP\\r\\n'")
    try:
        outcome = migrate(world, source, dest_qmp="/run/vmlab/odd.qmp", timeout="5")
    finally:
        end(world.b, process, "/run/vmlab/odd.qmp")
    world.assert_failed(source, None, outcome, "hostB", "/run/vmlab/odd.qmp")


def test_destination_that_does_not_wait_for_a_guest(world):
    """A QEMU that runs a guest of its own is left alone."""
    source = world.source()
    other = Guest(world.lab, "vm2", [Disk("raw")]).boot(world.b)
    world.qemus.append(other)
    outcome = migrate(world, source, dest_qmp=other.socket)
    outcome.check(1, "inmigrate|incoming", "running")
    world.assert_at_source(source)
    assert other.running()
    world.assert_clean()
    assert "vm1-d0.raw" not in world.b.image_files()
    world.assert_nothing_lost(other)


def test_destination_of_another_machine_type(world):
    source = world.source()
    destination = world.destination(source, machine="pc")
    outcome = migrate(world, source)
    world.assert_failed(source, destination, outcome, "machine", "q35", "i440fx|pc")


def test_destination_without_one_of_the_disks(world):
    source = world.source()
    destination = world.destination(source, disks=[Disk("raw")])
    outcome = migrate(world, source)
    world.assert_failed(source, destination, outcome, "hostB", "d1|vd1")


def test_destination_with_another_image_than_the_target(world):
    """A QEMU that would start from another file than the one that is copied."""
    source = world.source()
    world.b.run("truncate", "-s", "64M", f"{IMAGES}/vm1-other.raw")
    destination = world.destination(source)
    destination.end()
    destination.disks[0] = (f"{IMAGES}/vm1-other.raw", destination.disks[0][1])
    destination.start()
    outcome = migrate(world, source)
    world.assert_failed(source, destination, outcome, "vm1-d0.raw|vm1-other.raw")


def test_destination_of_another_memory_size(world):
    """Only QEMU itself finds this; the source goes on, and the message is QEMU's."""
    source = world.source()
    destination = world.destination(source, extra=["-m", "256"])
    outcome = migrate(world, source)
    outcome.check(1, "hostB|hostA")
    world.assert_at_source(source, destination)
    world.assert_clean()


@pytest.mark.parametrize("kind", ["luks", "qcow2-luks", "data-file", "block-job", "nbd-server",
                                  "blocked", "vhost-user"])
def test_refused_before_anything_starts(world, kind):
    """What would lose data, or show it in clear, or is somebody else's."""
    source, words = peculiar_source(world, kind)
    destination = world.destination(source) if kind in ("nbd-server",) else None
    source.baseline = source.inventory()
    outcome = migrate(world, source)
    outcome.check(1, *words)
    world.assert_at_source(source, destination)
    assert source.leftovers() == []
    assert world.b.programs() == ["qemu-system-x86_64"] * (destination is not None) + ["vmferryd"]


def create_encrypted(world, *args):
    """qemu-img measures how fast it derives keys, and gives up where the clock is too coarse."""
    for _ in range(50):
        made = world.a.run("qemu-img", "create", "-q", "--object", "secret,id=s,data=123456", *args,
                           "8M", check=False)
        if made.returncode == 0:
            return
        assert "accurate CPU usage" in made.stderr, made.stderr
    pytest.fail("qemu-img can't measure on this machine: " + made.stderr)


def peculiar_source(world, kind):
    image = f"{IMAGES}/peculiar"
    secret = ["-object", "secret,id=sec0,data=123456"]
    device = ["-device", "virtio-blk-pci,drive=odd,id=vdodd"]
    if kind == "luks":
        create_encrypted(world, "-f", "luks", "-o", "key-secret=s,iter-time=10", image)
        extra = [*secret, "-blockdev", "driver=luks,node-name=odd,key-secret=sec0,"
                 f"file.driver=file,file.filename={image}", *device]
        words = ["odd|vdodd", "encrypt|luks"]
    elif kind == "qcow2-luks":
        create_encrypted(world, "-f", "qcow2", "-o",
                         "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10", image)
        extra = [*secret, "-blockdev", "driver=qcow2,node-name=odd,encrypt.format=luks,"
                 f"encrypt.key-secret=sec0,file.driver=file,file.filename={image}", *device]
        words = ["odd|vdodd", "encrypt|luks"]
    elif kind == "data-file":
        world.a.run("qemu-img", "create", "-q", "-f", "qcow2", "-o",
                    f"data_file={image}.data", image, "8M")
        extra = ["-blockdev", f"driver=qcow2,node-name=odd,file.driver=file,file.filename={image}",
                 *device]
        words = ["odd|vdodd", "data.file"]
    elif kind == "blocked":
        extra = ["-device", "ivshmem-plain,memdev=shm", "-object",
                 "memory-backend-ram,id=shm,size=1M,share=on"]
        words = ["ivshmem|migration|block"]
    elif kind == "vhost-user":
        extra, words = vhost_user_disk(world, image), ["vhost-user"]
    else:
        extra, words = [], []
    source = world.source([Disk("raw")], keep=False, extra=extra)
    if kind == "block-job":
        world.a.run("qemu-img", "create", "-q", "-f", "raw", image, "64M")
        source.qmp("blockdev-add", driver="file", node_name="copy", filename=image)
        source.qmp("blockdev-backup", job_id="backup0", device="d0", target="copy", sync="full",
                   speed=65536)
        words = ["block job backup0"]
    elif kind == "nbd-server":
        source.qmp("nbd-server-start", addr={"type": "unix", "data": {"path": "/run/vmlab/nbd"}})
        words = ["NBD server"]
    return source, words


def vhost_user_disk(world, image):
    """A disk that QEMU doesn't serve itself; qemu-storage-daemon does."""
    world.a.run("truncate", "-s", "8M", image)
    path = "/run/vmlab/vhost.sock"
    world.a.popen("qemu-storage-daemon", "--blockdev", f"driver=file,node-name=x,filename={image}",
                  "--export", f"vhost-user-blk,id=e,node-name=x,writable=on,addr.type=unix,"
                  f"addr.path={path}")
    wait_for(lambda: os.path.exists(world.a.path(path)), "qemu-storage-daemon")
    return ["-object", "memory-backend-memfd,id=mem,size=192M,share=on", "-numa", "node,memdev=mem",
            "-chardev", f"socket,id=vhost,path={path}",
            "-device", "vhost-user-blk-pci,chardev=vhost,id=vdvhost"]


def test_disk_on_an_iothread_of_an_affected_qemu(world):
    """QEMU 7.2 aborts when an NBD client of such a disk leaves; whether this one does is tried on
    a QEMU that nobody needs. A QEMU that is not affected migrates."""
    source = world.source([Disk("raw", iothread=True)], keep=False)
    destination = world.destination(source)
    outcome = world.migrate(source)
    if outcome.code == 0:
        world.assert_moved(source, destination, outcome)
    else:
        world.assert_failed(source, destination, outcome, "iothread", "d0|vd0")
