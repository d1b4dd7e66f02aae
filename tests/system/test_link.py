# SPDX-License-Identifier: LGPL-2.1-or-later
"""The network between the hosts fails: noticed (cut) or silently (a black hole), at each moment."""
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
@pytest.mark.parametrize("status, delay_ms, cut", [
    ("pre-switchover", 0, "cut"), ("pre-switchover", 0, "drop"), ("device", 0, "cut"),
    ("device", 0, "drop"), ("device", 0, "drop-towards-a"), ("device", 0, "drop-towards-b"),
    ("completed", 0, "drop"), ("completed", 0, "drop-towards-a"), ("completed", 0, "drop-towards-b"),
    ("completed", 10, "drop")])
def test_in_the_handover(world, status, delay_ms, cut):
    source, destination = world.pair([Disk("raw", 64)])
    migration = world.start(source, "--timeout", "5")
    source.qmp.wait_event("MIGRATION", status=status)
    time.sleep(delay_ms / 1000)  # the moment is what is tried
    CUTS[cut](world.link)
    # However long it lasts, there are never two.
    deadline = time.monotonic() + 8
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


@pytest.mark.parametrize("owner", ["source", "destination"])
def test_the_operator_decides(world, owner):
    """A link that stays cut after the release: both sides say what they know, and obey."""
    source, destination = world.pair([Disk("raw", 64)])
    migration = world.start(source, "--timeout", "4")
    source.qmp.wait_event("MIGRATION", status="device")
    world.link.drop()
    outcome = migration.finish(90)
    if outcome.code != 3:  # the cut came too late or too early for a doubt
        world.link.heal()
        after_the_restart(world, source, destination)
        return
    assert "resolve" in outcome.message + outcome.stderr, outcome
    assert world.owners(source, destination) == []
    answers = [h.agent.vmferry("resolve", world.job(h)["job"], "--owner", owner)
               for h in world.lab.hosts if world.job(h)["state"] == "needs-operator"]
    for answer in answers:  # a side refuses what its journal disproves
        assert answer.returncode == 0 or len(answer.stderr.strip().splitlines()) == 1, answer
    wait_for(lambda: len(world.owners(source, destination)) == 1, "somebody to own the guest", 30)
    world.link.heal()
    assert after_the_restart(world, source, destination).host.name == (
        "hostA" if owner == "source" else "hostB") or any(a.returncode for a in answers)
