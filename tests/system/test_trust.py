# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who isn't trusted is told so in one line, before anything has been touched."""
import contextlib
import os
import re
import subprocess
import time

import pytest
from world import IMAGES, PORT, wait_for

HERE = os.path.dirname(os.path.realpath(__file__))


@contextlib.contextmanager
def fake_agent(world, mode):
    """Another program where hostB's agent should be."""
    world.b.agent.end()
    log = open(f"{world.b.directory}/fake-agent.log", "w")
    fake = world.b.popen("/usr/bin/python3", f"{HERE}/fake_agent.py", mode, stdout=log, stderr=log)
    wait_for(lambda: PORT in world.b.listening(), "the fake agent to listen")
    try:
        yield lambda: open(log.name).read()
    finally:
        os.kill(world.b.inner_pid(fake), 9)
        fake.wait()


def refused(world, *words, source_words=None):
    """A migration fails with these words, quickly, and nothing was touched."""
    source, destination = world.pair()
    before = world.b.image_files()
    begin = time.monotonic()
    outcome = world.migrate(source)
    assert time.monotonic() - begin < 20
    world.assert_failed(source, destination, outcome, *words)
    assert world.b.image_files() == before
    return outcome


def test_no_agent_there(world):
    world.b.agent.end()
    refused(world, "hostB", "refused|vmferryd")


def test_host_that_does_not_exist(world):
    source = world.source()
    args = ["vm1", "hostC", "--qmp", source.socket, "--dest-qmp", "/run/vmlab/vm1-in.qmp", "--json"]
    done = world.a.agent.vmferry("migrate", *args)
    assert done.returncode == 1 and "hostC" in done.stderr, done
    world.assert_at_source(source)


@pytest.mark.parametrize("mode, words", [
    ("version", ["hostB", "version"]),
    ("silent", ["hostB", "s(econds)?|time"]),
    ("garbage", ["hostB"]),
    ("flood", ["hostB"]),
])
def test_another_kind_of_agent(world, mode, words):
    source = world.source()
    with fake_agent(world, mode):
        outcome = world.migrate(source, "--timeout", "5")
    outcome.check(1, *words)
    world.assert_at_source(source)
    world.b.agent.start()
    world.assert_clean()


def test_what_a_peer_says_can_not_repaint_the_terminal(world):
    source = world.source()
    with fake_agent(world, "text"):
        outcome = world.migrate(source)
    outcome.check(1, "room")
    assert "\x1b" not in outcome.stderr + outcome.message and "\x07" not in outcome.stderr
    assert "\x1b" not in world.a.agent.log()
    world.b.agent.start()
    world.assert_clean()


def test_a_peer_that_asks_for_much_and_reads_nothing_is_cut_off(world):
    """QEMU 7.2 freezes the guest at the next drain when replies stay unread."""
    source = world.source(rate=500)
    guest = source.guest
    with fake_agent(world, "greedy") as said:
        before = len(guest.beats())
        migration = world.start(source, "--timeout", "6")
        wait_for(lambda: "asked" in said(), lambda: f"the greedy client: {said()}")
        # What drains the disk's queue, as the guest's own reset or a snapshot would.
        source.qmp("transaction", actions=[{"type": "block-dirty-bitmap-add", "data": {
            "node": "d0", "name": "probe"}}])
        source.qmp("block-dirty-bitmap-remove", node="d0", name="probe")
        outcome = migration.finish()
        guest.wait_beats()
        longest = max(max(b.latency_us) for b in guest.beats()[before:]) / 1000
    outcome.check(1, "hostB")
    assert longest < 1500, f"the guest's longest I/O took {longest} ms"
    world.assert_at_source(source)
    world.b.agent.start()
    world.assert_clean()


@pytest.mark.parametrize("host, variant, words", [
    ("b", "other-ca", ["hostB", "issuer|CA|trust"]),
    ("a", "other-ca", ["hostB|hostA", "issuer|CA|trust"]),
    ("b", "wrong-name", ["hostB", "elsewhere.example"]),
    ("b", "revoked", ["hostB", "revoked"]),
    ("a", "revoked", ["hostA|hostB", "revoked|refused|certificate"]),
    ("b", "unlisted", ["hostB", "elsewhere", "dn|listed|peer"]),
    ("a", "unlisted", ["elsewhere|hostA|hostB", "dn|listed|peer|refused"]),
])
def test_certificate_that_the_other_side_refuses(world, host, variant, words):
    getattr(world, host).credentials(variant)
    for agent in (world.a.agent, world.b.agent):
        agent.restart()
    refused(world, *words)


@pytest.mark.parametrize("host", ["a", "b"])
@pytest.mark.parametrize("variant, words", [
    ("expired", ["cert.pem", "expired"]),
    ("not-yet-valid", ["cert.pem", "not yet|2040|not valid before"]),
    ("none", ["/etc/pki/qemu"]),
    ("open-key", ["key.pem", "others|mode|0644|chmod"]),
])
def test_own_credentials_that_are_no_good(world, host, variant, words):
    """The agent of that host says so at its start, or at the first migration."""
    host = getattr(world, host)
    host.credentials(variant)
    host.agent.end()
    begin = len(host.agent.log())
    started = host.agent.start(wait=False)
    ready = wait_for(lambda: host.agent.ready() or (started.poll() is not None and "ended"),
                     "the agent to be ready or to end")
    if ready == "ended":
        text = host.agent.log()[begin:]
        assert all(re.search(w, text, re.IGNORECASE) for w in words), text
        assert len(text.strip().splitlines()) <= 2, text
        source = world.source()
        outcome = world.migrate(source)
        assert outcome.code == 1, outcome
        world.assert_at_source(source)
        return
    outcome = refused(world)
    text = outcome.message + host.agent.log()[begin:]
    assert all(re.search(w, text, re.IGNORECASE) for w in words), text


def test_no_client_certificate(world):
    world.a.credentials("no-client")
    world.a.agent.end()
    begin = len(world.a.agent.log())
    started = world.a.agent.start(wait=False)
    wait_for(lambda: world.a.agent.ready() or started.poll() is not None,
             "the agent to be ready or to end")
    source = world.source()
    outcome = world.migrate(source)
    assert outcome.code == 1, outcome
    assert "client-cert.pem" in outcome.message + world.a.agent.log()[begin:]
    world.assert_at_source(source)


def test_a_stranger_without_a_certificate_gets_nothing(world):
    """TLS or nothing: neither clear text nor an anonymous client gets an answer."""
    said = world.a.run("timeout", "3", "bash", "-c",
                       f"exec 3<>/dev/tcp/{world.b.address}/{PORT}; "
                       """echo '{"execute": "hello"}' >&3; cat <&3""", check=False).stdout
    assert "vmferry" not in said
    source, destination = world.pair()
    world.assert_moved(source, destination, world.migrate(source))


def test_many_strangers_do_not_keep_a_friend_out(world):
    source, destination = world.pair()
    crowd = world.a.popen("bash", "-c", "for i in $(seq 100 299); do "
                          f"eval \"exec $i<>/dev/tcp/{world.b.address}/{PORT}\"; done; echo there; exec sleep 1000", stdout=subprocess.PIPE)
    try:
        assert crowd.stdout.readline() == b"there\n"
        assert sum(s[0] == "ESTAB" and s[2] == PORT for s in world.a.sockets()) >= 30
        outcome = world.migrate(source).check(0)
    finally:
        os.kill(world.a.inner_pid(crowd), 9)
        crowd.communicate()
    world.assert_moved(source, destination, outcome)


def test_peers_are_closed_by_default(world):
    world.b.agent.configure(peers=False)
    world.b.agent.restart()
    refused(world, "hostB|hostA", "listed|peer|refused|dn")


@pytest.mark.parametrize("what, words", [
    ({"target_dirs": "/srv"}, [IMAGES, "target-dir"]),
    ({"qmp_dirs": "/srv"}, ["/run/vmlab", "qmp-dir"]),
])
def test_a_listed_peer_reaches_only_its_directories(world, what, words):
    world.b.agent.configure(**what)
    world.b.agent.restart()
    refused(world, *words)


def test_a_monitor_outside_is_not_reached_by_dots(world):
    source = world.source()
    args = ["vm1", "hostB", "--qmp", source.socket, "--json",
            "--dest-qmp", "/run/vmlab/../vmferry/control"]
    done = world.a.agent.vmferry("migrate", *args)
    assert done.returncode in (1, 2), done
    world.assert_at_source(source)
    world.assert_clean()


def test_the_traffic_is_encrypted(world):
    """None of the guest's records, none of its memory is seen in clear on the link."""
    capture = world.b.popen("/usr/bin/python3", "-c", """
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.ntohs(3))
s.bind(("eth0", 0))
found = 0
tail = b""
while True:
    data = s.recv(1 << 20)
    if b"\\x31\\x79\\x72\\x72\\x65\\x66\\x6d\\x76" in data or b"workload" in data \
            or b"base:allocation" in data or b'"execute"' in data:
        found += 1
        print(found, flush=True)
""", stdout=open(f"{world.b.directory}/capture.log", "w"))
    source, destination = world.pair()
    outcome = world.migrate(source)
    os.kill(world.b.inner_pid(capture), 9)
    capture.wait()
    assert open(f"{world.b.directory}/capture.log").read() == ""
    world.assert_moved(source, destination, outcome)
