# SPDX-License-Identifier: LGPL-2.1-or-later
"""One lab for the whole suite; each test gets it in good order and is judged by what it leaves."""
import os
import shutil
import sys
import tempfile

import pytest

sys.path.insert(0, os.path.dirname(__file__))
sys.path.insert(0, os.path.realpath(f"{os.path.dirname(__file__)}/../lab"))
from copyservers import Credentials
from vmlab import Lab
from world import NOISE, World

os.environ["G_DEBUG"] = "fatal-criticals"  # of the agents and of the command


@pytest.fixture(scope="session")
def lab():
    with Lab("tests") as lab:
        yield lab


@pytest.fixture(scope="session")
def session_world(lab):
    world = World(lab)
    yield world
    world.retire()


@pytest.fixture
def world(session_world):
    """The two hosts in good order, both agents running."""
    starts = {h: len(h.agent.log()) for h in session_world.lab.hosts}
    session_world.heal()
    yield session_world
    session_world.clean_up()
    for host, start in starts.items():
        assert not NOISE.search(host.agent.log()[start:]), host.agent.log()[start:][-2000:]


def directory(where):
    """One with a name short enough for sockets, gone afterwards."""
    path = tempfile.mkdtemp(prefix="vmferry-copy-", dir=where)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def here():
    """In memory, where there is enough: most tests are not about disks, and wait for none."""
    room = os.statvfs("/dev/shm")
    yield from directory("/dev/shm" if room.f_bavail * room.f_frsize > 2 << 30 else "/var/tmp")


@pytest.fixture
def on_disk():
    yield from directory("/var/tmp")


@pytest.fixture(scope="session")
def credentials(tmp_path_factory):
    return Credentials(tmp_path_factory.mktemp("pki"))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A failed test shows what the agents said."""
    report = (yield).get_result()
    world = item.funcargs.get("world") or item.funcargs.get("session_world")
    if report.failed and world:
        for host in world.lab.hosts:
            report.sections.append((f"vmferryd on {host.name}", host.agent.log()[-3000:]))
