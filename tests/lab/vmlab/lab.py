# SPDX-License-Identifier: LGPL-2.1-or-later
"""The lab as a whole: comes up clean, leaves nothing."""
import fcntl
import os
import shutil

from .host import Host
from .link import Link
from .pki import Pki
from .util import LabError, run, wait_for

LAB = os.path.realpath(f"{os.path.dirname(__file__)}/..")
REPOSITORY = os.path.realpath(f"{LAB}/../..")


def build_directory():
    return os.environ.get("VMFERRY_BUILD", f"{REPOSITORY}/build")


class Lab:
    """Its state is in $VMLAB_STATE, else /var/lib/vmlab/NAME; labs with different state don't
    touch each other. One user at a time: a second one of the same state is refused."""

    def __init__(self, name="default", state=None):
        self.state = os.path.abspath(state or os.environ.get("VMLAB_STATE")
                                     or f"/var/lib/vmlab/{name}")
        self.workload = f"{self.state}/guest/workload"
        self.a = Host(self, "hostA", "198.18.0.1", "aaaaaaaa-0000-4000-8000-00000000000a")
        self.b = Host(self, "hostB", "198.18.0.2", "bbbbbbbb-0000-4000-8000-00000000000b")
        self.hosts = (self.a, self.b)
        self.link = Link(self.a, self.b)
        self._lock = None

    def __enter__(self):
        return self.up()

    def __exit__(self, *_):
        self.down()

    def other(self, host):
        return self.b if host is self.a else self.a

    @property
    def pki(self):
        return Pki(f"{self.state}/pki")

    @staticmethod
    def program(name):
        return f"{build_directory()}/daemon/{name}"

    def _take(self):
        os.makedirs(self.state, exist_ok=True)
        if os.listdir(self.state) and not os.path.exists(f"{self.state}/vmlab"):
            raise LabError(f"{self.state} isn't the state of a lab, and not empty")
        lock = os.open(self.state, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise LabError(f"the lab in {self.state} is in use by another program") from None
        self._lock = lock

    def up(self, libvirt=False):
        """Two new hosts; what a run before may have left is removed first."""
        self.down()
        self._take()
        open(f"{self.state}/vmlab", "w").close()
        run(f"{LAB}/guest/build.sh", f"{self.state}/guest")
        for host in self.hosts:
            host.start()
        self.link.plug()
        if libvirt:
            from .libvirt import Libvirt
            for host in self.hosts:
                Libvirt(host).start()
        return self

    def down(self):
        """Ends all that runs in the lab and removes its state."""
        if not os.path.isdir(self.state):
            return
        if self._lock is None:
            self._take()
        for host in self.hosts:
            host.crash()
        # The kernel frees an image's own mount a moment after the last process.
        for line in run("losetup", "-l", "-n", "-O", "NAME,BACK-FILE").stdout.splitlines():
            device, backing = line.split(None, 1)
            if backing.startswith(self.state + "/"):
                run("losetup", "-d", device, check=False)
        wait_for(lambda: self.state not in run("losetup", "-l").stdout, "loop devices to go")
        shutil.rmtree(self.state)
        os.close(self._lock)
        self._lock = None
