# SPDX-License-Identifier: LGPL-2.1-or-later
"""Agents that die or are restarted: what they had made is gone when they are back, and the guest
runs on exactly one host."""
import time

import pytest
from world import Disk, wait_for


def restart(world):
    for host in world.lab.hosts:
        if not host.agent.pid:
            host.agent.start()


def after_the_restart(world, source, destination):
    """All agents are back; whatever it takes, the job ends and there is one guest."""
    restart(world)

    def settled():
        jobs = [j for h in world.lab.hosts for j in h.agent.jobs()]
        return all(j["state"] in ("done", "failed", "cancelled") for j in jobs)
    wait_for(settled, lambda: f"jobs to end: {[h.agent.jobs() for h in world.lab.hosts]}", 60, 0.2)
    owner = world.assert_one_owner(source, destination)
    world.assert_clean()
    world.assert_nothing_lost(owner)
    return owner


@pytest.mark.parametrize("how", ["kill", "end"])
@pytest.mark.parametrize("where", ["a", "b"])
def test_agent_ends_in_mid_copy(world, where, how):
    source, destination = world.pair()
    world.slow()
    migration = world.start(source, "--timeout", "10")
    world.wait_copying(source)
    getattr(getattr(world, where).agent, how)()
    restart(world)
    outcome = migration.finish()
    assert outcome.code == 1 or where == "a" and outcome.code == 130, outcome
    assert outcome.message, outcome
    world.assert_at_source(source, destination)
    assert after_the_restart(world, source, destination) is source


@pytest.mark.parametrize("where", ["a", "b"])
def test_agent_killed_while_memory_moves(world, where):
    source, destination = world.pair([Disk("raw", 64)], ram_mb=96)
    world.slow("160mbit")
    migration = world.start(source, "--timeout", "10")
    source.qmp.wait_event("MIGRATION", status="active")
    getattr(world, where).agent.kill()
    restart(world)
    outcome = migration.finish()
    assert outcome.code in (1, 3), outcome
    assert after_the_restart(world, source, destination) is source


# The moments of the handover, seen from the source's QEMU.
@pytest.mark.parametrize("status, delay_ms, where", [
    ("pre-switchover", 0, "a"), ("pre-switchover", 0, "b"),
    *((status, 0, where) for status in ("device", "completed") for where in ("a", "b", "both")),
    ("completed", 15, "a")])
def test_agent_killed_in_the_handover(world, status, delay_ms, where):
    source, destination = world.pair([Disk("raw", 64)])
    migration = world.start(source, "--timeout", "10")
    source.qmp.wait_event("MIGRATION", status=status)
    time.sleep(delay_ms / 1000)  # the moment is what is tried
    for host in world.lab.hosts if where == "both" else [getattr(world, where)]:
        host.agent.kill()
    restart(world)
    outcome = migration.finish()
    assert outcome.code in (0, 1, 3), outcome
    after_the_restart(world, source, destination)


def test_restarted_agents_forget_nothing_and_start_clean(world):
    """A restart without a job is nothing special: a migration works right after it."""
    for host in world.lab.hosts:
        host.agent.kill()
        host.agent.start()
    source, destination = world.pair([Disk("raw", 64)])
    world.assert_moved(source, destination, world.migrate(source))


def test_damaged_journal_is_reported_and_harms_nobody(world):
    for host in world.lab.hosts:
        host.agent.end()
        host.run("mkdir", "-p", "/var/lib/vmferry/jobs")
        host.run("bash", "-c", "head -c 4000 /dev/urandom >/var/lib/vmferry/jobs/"
                 "00000000-0000-4000-8000-000000000000.journal")
        begin = len(host.agent.log())
        host.agent.start()
        wait_for(lambda: "00000000-0000-4000-8000" in host.agent.log()[begin:],
                 "the agent to name the damaged journal")
    source, destination = world.pair([Disk("raw", 64)])
    outcome = world.migrate(source).check(0)
    for host in world.lab.hosts:
        host.run("bash", "-c", "rm -f /var/lib/vmferry/jobs/00000000*")
    world.assert_moved(source, destination, outcome)


def test_second_agent_on_the_same_host_is_refused(world):
    pid = world.a.agent.pid
    second = world.a.run(world.lab.program("vmferryd"), check=False, timeout=10)
    assert second.returncode != 0 and len(second.stderr.strip().splitlines()) <= 2, second
    assert world.a.agent.pid == pid and world.a.agent.ready()


@pytest.mark.parametrize("text, words", [
    ("[agent]\nlisten=nowhere\n", ["listen", "nowhere"]),
    ("[agent]\ntypo=1\n", ["typo"]),
    ("[agent]\nports=70000-80000\n", ["ports", "70000"]),
    ("[peer hostB]\ntarget-dirs=relative\ndn=O=x\n", ["target-dirs", "relative"]),
    ("[peer hostB]\ntarget-dirs=/srv\n", ["hostB", "dn"]),
    ("nonsense", ["vmferryd.conf"]),
])
def test_configuration_with_a_mistake(world, text, words):
    world.a.agent.end()
    path = f"{world.a.directory}/etc/vmferry/vmferryd.conf"
    with open(path, "w") as f:
        f.write(text)
    done = world.a.run(world.lab.program("vmferryd"), check=False, timeout=10)
    assert done.returncode != 0 and all(w in done.stderr for w in words), done
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
