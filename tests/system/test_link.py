# SPDX-License-Identifier: LGPL-2.1-or-later
"""The network between the hosts fails: noticed (cut) or silently (a black hole), at each moment."""
import signal
import time

import pytest
from test_agents import after_the_restart
from world import Disk, wait_for

CUTS = {"cut": lambda link: link.cut(), "drop": lambda link: link.drop(),
        "drop-towards-a": lambda link: link.drop("a"), "drop-towards-b": lambda link: link.drop("b")}


@pytest.mark.parametrize("cut", CUTS)
def test_in_mid_copy(world, cut):
    source, destination = world.pair(rate=500)
    world.slow()
    migration = world.start(source, "--timeout", "4")
    world.wait_copying(source)
    before = len(source.guest.beats())
    CUTS[cut](world.link)
    outcome = migration.finish(40)
    source.guest.wait_beats()
    longest = max(max(b.latency_us) for b in source.guest.beats()[before:]) / 1000
    assert longest < 1500, f"the guest's longest I/O took {longest} ms"
    # With the link still down the source is clean already; the destination too by its own time.
    outcome.check(1, "hostB")
    world.assert_at_source(source, destination)
    world.assert_clean(timeout=30)
    assert [f for f in world.b.image_files() if not f.startswith("vm1-d")] == []


def test_a_short_cut_in_mid_copy_is_outlived(world):
    source, destination = world.pair()
    world.slow()
    migration = world.start(source, "--timeout", "20")
    world.wait_copying(source)
    world.link.drop()
    time.sleep(2)  # the cut's length is what is tried
    world.link.heal()
    world.assert_moved(source, destination, migration.finish())


@pytest.mark.parametrize("cut", ["cut", "drop"])
def test_while_memory_moves(world, cut):
    source, destination = world.pair([Disk("raw", 64)], ram_mb=96)
    world.slow("160mbit")
    migration = world.start(source, "--timeout", "4")
    source.qmp.wait_event("MIGRATION", status="active")
    CUTS[cut](world.link)
    outcome = migration.finish(60)
    outcome.check(1, "hostB")
    world.assert_at_source(source, destination)
    world.link.heal()
    world.assert_clean(timeout=30)


# The same moments as in test_agents: pre-switchover is before the release, device between release
# and fence, completed around the fence.
@pytest.mark.parametrize("status, cut", [
    ("pre-switchover", "cut"), ("pre-switchover", "drop"), ("device", "cut"), ("device", "drop"),
    ("device", "drop-towards-a"), ("device", "drop-towards-b"), ("completed", "drop"),
    ("completed", "drop-towards-a")])
def test_in_the_handover(world, status, cut):
    source, destination = world.pair([Disk("raw", 64)])
    migration = world.start(source, "--timeout", "4")
    source.qmp.wait_event("MIGRATION", status=status)
    CUTS[cut](world.link)
    # However long it lasts, there are never two.
    deadline = time.monotonic() + 7
    while time.monotonic() < deadline and len(world.owners(source, destination)) < 2:
        time.sleep(0.1)
    assert len(world.owners(source, destination)) <= 1
    world.link.heal()
    outcome = migration.finish(90)
    assert outcome.code in (0, 1, 3), outcome
    owner = after_the_restart(world, source, destination)
    if outcome.code == 0:
        assert owner is destination
    elif outcome.code == 1:
        assert owner is source


def test_the_operator_gives_the_guest_to_the_source(world):
    """A link that stays cut after the release: both sides say what they know, and obey."""
    source, destination = world.pair([Disk("raw", 64)])
    migration = world.start(source, "--timeout", "4")
    source.qmp.wait_event("MIGRATION", status="completed")
    world.link.drop()
    outcome = migration.finish(90)
    wait_for(lambda: world.job(world.b)["state"] != "released", "the destination to miss its peer")
    if outcome.code != 3 or world.job(world.b)["state"] != "needs-operator":
        world.link.heal()  # the cut came too late or too early for a doubt
        after_the_restart(world, source, destination)
        return
    assert "resolve" in outcome.message + outcome.stderr, outcome
    assert world.owners(source, destination) == []
    for host in world.lab.hosts:
        answer = host.agent.vmferry("resolve", world.job(host)["job"], "--owner", "source")
        assert answer.returncode == 0, answer
    wait_for(source.running, "the source to run", 30)
    world.link.heal()
    assert after_the_restart(world, source, destination) is source


def test_the_operator_gives_the_guest_to_the_destination(world):
    """The source's agent is gone for good, as far as anybody can tell; it is back later."""
    source, destination = world.pair([Disk("raw", 64)])
    migration = world.start(source)
    source.qmp.wait_event("MIGRATION", status="completed")
    world.a.agent.kill()
    migration.signal(signal.SIGHUP)
    wait_for(lambda: world.job(world.b)["state"] != "released", "the destination to miss its peer")
    job = world.job(world.b)
    if job["state"] == "needs-operator":
        assert "resolve" in job["message"] and not destination.running(), job
        answer = world.b.agent.vmferry("resolve", job["job"], "--owner", "destination")
        assert answer.returncode == 0, answer
    wait_for(destination.running, "the destination to run", 30)
    assert after_the_restart(world, source, destination) is destination
    migration.finish()
