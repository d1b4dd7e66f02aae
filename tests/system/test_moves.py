# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest crosses with all kinds of disks and loads, and loses nothing."""
import json
import os

import pytest
from world import Disk, Guest, IMAGES, run, wait_for

RESULT = {"job", "guest", "state", "owner", "total_s", "downtime_ms", "sent_bytes", "zero_bytes",
          "passes", "error"}


@pytest.mark.parametrize("rate", [250, 0], ids=["busy", "flat-out"])
def test_raw_and_qcow2(world, rate):
    source, destination = world.pair([Disk("raw", 128), Disk("qcow2", 128)], rate=rate)
    world.assert_moved(source, destination, world.migrate(source))
    assert len(source.guest.downtime_ms()) == 1


def test_idle_guest_and_the_result_object(world):
    source, destination = world.pair(rate=1)
    outcome = world.migrate(source)
    for name in ("vm1-d0.raw", "vm1-d1.qcow2"):
        mb = os.stat(world.b.path(f"{IMAGES}/{name}")).st_blocks / 2048
        assert mb < 45, f"{name} takes {mb} MB, 40 were needed"
    world.assert_moved(source, destination, outcome)
    result = outcome.result
    assert RESULT <= result.keys(), RESULT - result.keys()
    assert (result["guest"], result["state"], result["owner"]) == ("vm1", "done", "destination")
    assert result["error"] is None and result["passes"] >= 1
    # 2 disks of 64 MiB hold 40 MiB each; holes are not sent.
    assert result["sent_bytes"] > 80 << 20 and result["zero_bytes"] > 40 << 20
    assert abs(result["downtime_ms"] - source.guest.downtime_ms()[0]) < 100
    assert outcome.stderr == "" or "\n" in outcome.stderr
    for line in outcome.stdout.splitlines():
        json.loads(line)


def test_raw_becomes_qcow2_and_the_other_way_round(world):
    there = [Disk("qcow2"), Disk("raw")]
    source = world.source([Disk("raw"), Disk("qcow2")])
    destination = world.destination(source, disks=there)
    outcome = world.migrate(source, "--disk", f"d0={IMAGES}/vm1-d0.qcow2,format=qcow2",
                            "--disk", f"d1={IMAGES}/vm1-d1.raw,format=raw")
    world.assert_moved(source, destination, outcome)


def test_block_device(world):
    device = world.b.block_device("target", 64)
    with open(device, "r+b") as f:  # what was there before must not show through
        f.write(b"\xaa" * (64 << 20))
    world.b.agent.configure(target_dirs=f"{IMAGES};{device}")
    world.b.agent.restart()
    source = world.source([Disk("raw")])
    destination = world.destination(source, disks=[Disk("raw", path=device)])
    outcome = world.migrate(source, "--disk", f"d0={device}", "--overwrite")
    try:
        world.assert_moved(source, destination, outcome)
    finally:
        destination.end()
        run("losetup", "-d", device)


def test_targets_are_created_and_the_qemu_may_come_late(world):
    source = world.source()
    world.slow("400mbit")
    migration = world.start(source)
    wait_for(lambda: len(world.b.image_files()) == 2, "both targets to be created")
    destination = world.destination(source, create=False)
    world.assert_moved(source, destination, migration.finish())


def test_there_and_back_again(world):
    source, destination = world.pair()
    world.migrate(source).check(0)
    wait_for(lambda: not source.alive, "the source's QEMU to end")
    destination.guest.wait_beats(n=20)
    world.assert_clean()
    destination.baseline = destination.inventory()
    back = world.destination(destination, host=world.a)
    outcome = world.migrate(destination)
    world.assert_moved(destination, back, outcome)
    assert len(source.guest.downtime_ms()) == 2


def test_again_at_once_after_a_failure(world):
    source = world.source()
    world.slow()
    migration = world.start(source, "--timeout", "3")
    world.wait_copying(source)
    world.link.cut()
    migration.finish().check(1)
    world.link.heal()
    world.assert_clean()
    destination = world.destination(source)
    world.assert_moved(source, destination, world.migrate(source))


def test_two_guests_at_once(world):
    first = world.source([Disk("raw")])
    second = Guest(world.lab, "vm2", [Disk("qcow2")]).boot(world.a)
    world.qemus.append(second)
    there = [world.destination(first), world.destination(second)]
    migrations = [world.start(first), world.start(second)]
    for migration in migrations:
        migration.finish().check(0)
    for source, destination in zip((first, second), there):
        wait_for(destination.running, "the destination to run")
        wait_for(lambda: not source.alive, "the source to end")
        destination.guest.wait_beats(n=20)
    world.assert_clean()
    for destination in there:
        world.assert_nothing_lost(destination)


def test_memory_that_changes_fast(world):
    source, destination = world.pair([Disk("raw")], ram_mbps=20)
    world.assert_moved(source, destination, world.migrate(source))


def test_a_paused_guest_stays_paused(world):
    source, destination = world.pair([Disk("raw")])
    source.qmp("stop")
    world.migrate(source).check(0)
    assert destination.status() == "paused"
    wait_for(lambda: not source.alive, "the source to end")
    world.assert_clean()
    destination.qmp("cont")
    destination.guest.wait_beats()
    world.assert_nothing_lost(destination)


def test_empty_and_read_only_drives_are_left_alone(world):
    iso = f"{IMAGES}/read-only.iso"
    for host in world.lab.hosts:
        host.run("truncate", "-s", "1M", iso)
    extra = ["-device", "virtio-scsi-pci,id=scsi0", "-device", "scsi-cd,bus=scsi0.0,id=empty",
             "-blockdev", f"driver=raw,node-name=iso,read-only=on,file.driver=file,"
             f"file.filename={iso}", "-device", "scsi-cd,bus=scsi0.0,drive=iso,id=cd"]
    source = world.source([Disk("raw")], extra=extra)
    destination = world.destination(source, extra=extra)
    world.assert_moved(source, destination, world.migrate(source))


def test_a_backing_chain_is_flattened_and_said_so(world):
    guest = Guest(world.lab, "vm1", [Disk("qcow2")])
    guest.create_images(world.a)
    top, below = f"{IMAGES}/vm1-d0.qcow2", f"{IMAGES}/vm1-below.qcow2"
    world.a.run("mv", top, below)
    world.a.run("qemu-img", "create", "-q", "-f", "qcow2", "-b", below, "-F", "qcow2", top)
    source = guest.boot(world.a, create=False)
    world.qemus.append(source)
    destination = world.destination(source)
    outcome = world.migrate(source)
    assert "backing" in outcome.stderr + outcome.stdout or "flatten" in outcome.stderr + outcome.stdout
    info = json.loads(world.b.run("qemu-img", "info", "-U", "--output=json", top).stdout)
    assert "backing-filename" not in info
    world.assert_moved(source, destination, outcome)


def test_max_downtime_and_rate_are_kept(world):
    source, destination = world.pair([Disk("raw")])
    outcome = world.migrate(source, "--rate", "20M", "--max-downtime", "500")
    assert outcome.result["total_s"] > 2.5  # 40 MiB and some RAM at 20 MB/s
    world.assert_moved(source, destination, outcome)


def test_prealloc(world):
    source = world.source([Disk("raw")], rate=1)
    migration = world.start(source, "--disk", f"d0={IMAGES}/vm1-d0.raw,prealloc=falloc")
    wait_for(lambda: world.b.image_files(), "the target to be created")
    destination = world.destination(source, create=False)
    outcome = migration.finish().check(0)
    assert os.stat(world.b.path(f"{IMAGES}/vm1-d0.raw")).st_blocks >= 64 * 2048
    world.assert_moved(source, destination, outcome)
