# SPDX-License-Identifier: LGPL-2.1-or-later
"""The command line around a migration that works: follow, leave, cancel, ask."""
import json
import os
import signal
import time

import pytest


def test_detach_status_watch_and_jobs(world):
    source, destination = world.pair()
    world.slow("200mbit")
    started = world.a.agent.vmferry("migrate", *world.arguments(source, ["--detach"], False))
    assert started.returncode == 0, started.stderr
    job = started.stdout.split()[-1]
    assert len(job) == 36
    status = world.a.agent.vmferry("status", job, "--json")
    assert json.loads(status.stdout.splitlines()[-1])["job"] == job
    jobs = world.a.agent.vmferry("jobs")
    assert job[:8] in jobs.stdout and "vm1" in jobs.stdout
    world.slow("unlimited")
    watch = world.a.agent.vmferry("watch", job, "--json")
    assert watch.returncode == 0, watch.stderr
    assert json.loads(watch.stdout.splitlines()[-1])["state"] == "done"
    world.assert_moved(source, destination)


def test_the_report_of_a_terminal(world):
    """Without --json: the report has the figures, on a pipe there are no bars."""
    source, destination = world.pair()
    done = world.a.agent.vmferry("migrate", *world.arguments(source, json_lines=False))
    assert done.returncode == 0, done.stderr
    assert "downtime" in done.stdout + done.stderr
    assert "\x1b[" not in done.stdout + done.stderr
    world.assert_moved(source, destination)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("state", ["seeding", "cutover"])
def test_ctrl_c(world, state, how):
    source, destination = world.pair(rate=500, ram_mb=64)
    world.slow("80mbit" if state == "seeding" else "200mbit")
    migration = world.start(source)
    world.wait_state(state)
    migration.signal(how)
    outcome = migration.finish()
    world.assert_failed(source, destination, outcome, "cancel", code=130)


@pytest.mark.parametrize("delay_ms", [0, 20, 60, 150])
def test_ctrl_c_around_the_switchover(world, delay_ms):
    """Too early or too late: the exit status tells which, and there is one guest."""
    source, destination = world.pair()
    migration = world.start(source)
    source.qmp.wait_event("STOP")
    time.sleep(delay_ms / 1000)  # the moment is what is tried
    migration.signal(signal.SIGINT)
    outcome = migration.finish()
    if outcome.code == 130:
        world.assert_failed(source, destination, outcome, "cancel", code=130)
    else:
        world.assert_moved(source, destination, outcome)


def test_cancel_by_another_terminal(world):
    source, destination = world.pair()
    world.slow()
    migration = world.start(source)
    world.wait_copying(source)
    job = world.job()["job"]
    cancel = world.a.agent.vmferry("cancel", job[:8])
    assert cancel.returncode == 0, cancel.stderr
    world.assert_failed(source, destination, migration.finish(), "cancel", code=130)


def test_cancel_of_an_ended_and_of_an_unknown_job(world):
    for job in ("00000000-0000-4000-8000-000000000000", "nonsense"):
        cancel = world.a.agent.vmferry("cancel", job)
        assert cancel.returncode == 1 and len(cancel.stderr.strip().splitlines()) == 1, cancel


def test_the_death_of_the_command_leaves_the_job_running(world):
    source, destination = world.pair()
    world.slow("200mbit")
    migration = world.start(source)
    world.wait_copying(source)
    migration.signal(signal.SIGKILL)
    migration.process.communicate()
    world.slow("unlimited")
    world.wait_state("done")
    world.assert_moved(source, destination)


def test_sighup_leaves_the_job_running(world):
    source, destination = world.pair()
    world.slow("200mbit")
    migration = world.start(source)
    world.wait_copying(source)
    migration.signal(signal.SIGHUP)
    migration.process.communicate(timeout=10)
    world.slow("unlimited")
    world.wait_state("done")
    world.assert_moved(source, destination)


def test_a_second_migration_of_the_same_guest_is_refused(world):
    source, destination = world.pair()
    world.slow("100mbit")
    first = world.start(source)
    world.wait_copying(source)
    world.migrate(source).check(1, "vm1", "already|being migrated")
    world.link.rate("unlimited")
    world.assert_moved(source, destination, first.finish())


@pytest.mark.parametrize("arguments", [
    ["migrate"], ["migrate", "vm1"], ["fly", "vm1", "hostB"],
    ["migrate", "vm1", "hostB", "--qmp", "/run/vmlab/x.qmp"],
    ["migrate", "vm1", "hostB", "--qmp", "/q", "--dest-qmp", "/q", "--rate", "fast"],
    ["migrate", "vm1", "hostB", "--qmp", "/q", "--dest-qmp", "/q", "--disk", "d0"],
    ["migrate", "vm1", "hostB", "--qmp", "/q", "--dest-qmp", "/q", "--undefinesource"],
    ["migrate", "vm1", "hostB", "--qmp", "/q", "--dest-qmp", "/q", "--hold"],
    ["migrate", "vm1", "hostB", "--qmp", "/q", "--dest-qmp", "/q", "--at", "23:00"],
    ["migrate", "vm1", "hostB", "--qmp", "/q", "--dest-qmp", "/q", "--throttle"],
    ["migrate", "vm1", "hostB", "--qmp", "/q", "--dest-qmp", "/q", "--verify"],
    ["migrate", "vm1", "hostB", "--connect", "qemu:///system", "--qmp", "/q", "--dest-qmp", "/q"],
    ["migrate", "vm1", "hostB", "--connect"],
    ["cutover", "x"], ["pause", "x"], ["resume", "x"], ["forget", "x"], ["check", "vm1", "hostB"],
    ["copy", "nbd://x", "/y"], ["resolve", "x", "--owner", "me"], ["cancel"]],
    ids=lambda a: " ".join(a[:1] + a[-2:]))
def test_bad_usage(world, arguments):
    done = world.a.agent.vmferry(*arguments, timeout=10)
    assert done.returncode == 2, done
    assert done.stdout == "" and 1 <= len(done.stderr.strip().splitlines()) <= 3, done.stderr


@pytest.mark.parametrize("more", [[], ["--connect", "qemu:///system"]], ids=["", "connect"])
def test_no_libvirt_here(world, more):
    """Without --qmp the guest is a domain of libvirt, which these hosts don't run."""
    done = world.a.agent.vmferry("migrate", "vm1", "hostB", *more, timeout=30)
    assert done.returncode == 1, done
    for word in ("vm1", "qemu:///system", "libvirt-sock"):
        assert word in done.stderr, done
    assert len(done.stderr.strip().splitlines()) <= 3, done


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["migrate", "--help"]])
def test_help(world, arguments):
    done = world.a.agent.vmferry(*arguments, timeout=10)
    assert done.returncode == 0 and "vmferry" in done.stdout, done


def test_no_agent_here(world):
    source, destination = world.pair()
    world.a.agent.end()
    outcome = world.migrate(source)
    world.assert_failed(source, destination, outcome, "/run/vmferry/control", "vmferryd")


def test_control_socket_is_not_for_everybody(world):
    mode = os.stat(world.a.path("/run/vmferry/control")).st_mode
    assert mode & 0o7 == 0, oct(mode)
    denied = world.a.run("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups",
                         world.lab.program("vmferry"), "jobs", check=False)
    assert denied.returncode == 1 and len(denied.stderr.strip().splitlines()) == 1, denied
