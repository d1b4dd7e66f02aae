# SPDX-License-Identifier: LGPL-2.1-or-later
"""What can happen to the guest, its disks and its QEMUs while it is being moved."""
import signal

import pytest
from world import Disk, IMAGES, wait_for


@pytest.fixture
def moving(world):
    """(source, destination, migration) in mid-copy, on a slow link."""
    source, destination = world.pair([Disk("qcow2", 128), Disk("raw", 128)], keep=False)
    world.slow()
    migration = world.start(source, "--timeout", "10")
    world.wait_copying(source)
    return source, destination, migration


def snapshot(source):
    source.host.run("qemu-img", "create", "-q", "-f", "qcow2", f"{IMAGES}/vm1-overlay.qcow2", "128M")
    source.qmp("blockdev-add", driver="qcow2", node_name="overlay", file={
        "driver": "file", "filename": f"{IMAGES}/vm1-overlay.qcow2"}, backing=None)
    source.qmp("blockdev-snapshot", node="d0", overlay="overlay")


def pivot(source):
    """A copy of the disk takes its place, as at the end of a blockcopy."""
    source.host.run("qemu-img", "create", "-q", "-f", "raw", f"{IMAGES}/vm1-pivot.raw", "128M")
    source.qmp("blockdev-add", driver="file", node_name="pivot",
               filename=f"{IMAGES}/vm1-pivot.raw")
    source.qmp("blockdev-mirror", job_id="pivot0", device="d0", target="pivot", sync="full")
    wait_for(lambda: any(j["ready"] for j in source.qmp("query-block-jobs")), "the mirror")
    source.qmp("job-complete", id="pivot0")
    wait_for(lambda: not source.qmp("query-block-jobs"), "the pivot")


@pytest.mark.parametrize("change", [snapshot, pivot])
def test_disk_that_the_guest_no_longer_writes_to(world, moving, change):
    """The bitmap stays behind on the old node: going on would lose data without a word."""
    source, destination, migration = moving
    change(source)
    world.link.rate("unlimited")
    outcome = migration.finish()
    outcome.check(1, "d0|vd0", "snapshot|node|no longer|now")
    world.assert_at_source(source, destination)
    left = [x for x in source.leftovers() if not x.startswith("descriptor")]
    assert left == [], left


def test_resize_in_mid_copy(world, moving):
    """QEMU refuses while the disk is exported; in between it is seen at the next pass."""
    source, destination, migration = moving
    try:
        source.qmp("block_resize", node_name="d1", size=256 << 20)
        resized = True
    except RuntimeError:
        resized = False
    world.link.rate("unlimited")
    outcome = migration.finish()
    if resized:
        outcome.check(1, "d1|vd1", "size|grown|resized")
        world.assert_at_source(source, destination)
    else:
        world.assert_moved(source, destination, outcome)


def test_reset_in_mid_copy(world, moving):
    source, destination, migration = moving
    source.qmp("system_reset")
    source.guest.wait_beats(timeout=60)
    world.link.rate("unlimited")
    outcome = migration.finish()
    source.guest.wait_beats(n=100)
    world.assert_moved(source, destination, outcome)


def test_pause_in_mid_copy(world, moving):
    """A guest that its operator pauses stays paused, wherever it is."""
    source, destination, migration = moving
    source.qmp("stop")
    world.link.rate("unlimited")
    outcome = migration.finish()
    outcome.check(0)
    assert destination.status() == "paused"
    wait_for(lambda: not source.alive, "the source to end")
    world.assert_clean()
    destination.qmp("cont")
    destination.guest.wait_beats()
    world.assert_nothing_lost(destination)


def test_power_off_in_mid_copy(world, moving):
    """QEMU ends: there is nothing left to move."""
    source, destination, migration = moving
    source.qmp.socket.sendall(b'{"execute": "quit"}\n')
    source.process.wait(10)
    outcome = migration.finish()
    outcome.check(1, "vm1|QEMU", "ended|gone|closed|powered|quit|shut")
    assert destination.status() in ("inmigrate", "gone")
    world.assert_clean()


def test_source_qemu_killed_in_mid_copy(world, moving):
    source, destination, migration = moving
    source.end(signal.SIGKILL)
    outcome = migration.finish()
    outcome.check(1, "QEMU|vm1", "ended|gone|closed|died")
    assert destination.status() in ("inmigrate", "gone")
    world.assert_clean()


def test_destination_qemu_killed_in_mid_copy(world, moving):
    source, destination, migration = moving
    destination.end(signal.SIGKILL)
    world.link.rate("unlimited")
    world.assert_failed(source, destination, migration.finish(), "hostB", "QEMU|vm1-in.qmp")


def test_destination_qemu_killed_while_memory_moves(world):
    source, destination = world.pair([Disk("raw", 64)], ram_mb=96)
    world.slow("160mbit")
    migration = world.start(source, "--timeout", "10")
    source.qmp.wait_event("MIGRATION", status="active")
    destination.end(signal.SIGKILL)
    world.assert_failed(source, destination, migration.finish(), "hostB|QEMU|migration")


@pytest.mark.parametrize("status", ["active", "pre-switchover", "device", "completed"])
def test_destination_qemu_killed_at_the_cutover(world, status):
    """Up to the start at the destination the source goes on. Once the guest has run there, it
    is lost with its QEMU, as it would be at any time; only then may nobody run."""
    source, destination = world.pair([Disk("raw", 64)], keep=False)
    migration = world.start(source, "--timeout", "10")
    source.qmp.wait_event("MIGRATION", status=status)
    destination.end(signal.SIGKILL)
    outcome = migration.finish()
    if any(b.host == "hostB" for b in source.guest.beats()):
        assert not source.running(), "the source runs a guest that had moved"
        return
    if outcome.code == 3:
        resolve(world, world.a, "source")
    else:
        outcome.check(1)
    world.assert_at_source(source, destination)
    world.assert_clean()
    world.assert_nothing_lost(source)


def resolve(world, host, owner):
    done = host.agent.vmferry("resolve", world.job(host)["job"], "--owner", owner)
    assert done.returncode == 0, done


@pytest.mark.parametrize("status", ["active", "pre-switchover", "device", "completed"])
def test_source_qemu_killed_at_the_cutover(world, status):
    """Before the fence the guest is lost with its QEMU (its disk at the source has all that it
    had acknowledged); afterwards it runs at the destination, or the operator says so."""
    source, destination = world.pair([Disk("raw", 64)], keep=False)
    migration = world.start(source, "--timeout", "10")
    source.qmp.wait_event("MIGRATION", status=status)
    source.end(signal.SIGKILL)
    outcome = migration.finish()
    assert outcome.code in (0, 1, 3), outcome
    if outcome.code == 0:
        world.assert_moved(source, destination, outcome)
        return
    assert outcome.message and not destination.running(), outcome
    if outcome.code == 1:
        world.assert_clean()
        beat = source.guest.beats()[-1]
        results = source.guest.verify(source.disks, world.a, beat)
        assert all(r["ok"] for r in results), results
