# SPDX-License-Identifier: LGPL-2.1-or-later
"""One simulated host: namespaces with files, network and processes of their own."""
import os
import signal
import subprocess

from .agent import Agent
from .util import LabError, run, wait_for

IMAGES = "/var/lib/vmlab/images"
# What a host has to itself of the machine's file system, besides /run and /proc.
PRIVATE = {
    "/etc/vmferry": "dir", "/etc/pki": "dir", "/etc/libvirt": "dir", "/etc/hosts": "file",
    "/etc/hostname": "file", "/etc/machine-id": "file", "/var/lib/vmferry": "dir",
    "/var/lib/libvirt": "dir", "/var/cache/libvirt": "dir", "/var/log/libvirt": "dir",
    IMAGES: "dir",
}

# bash as process 1 also reaps what its children leave behind.
INIT = r"""
set -e
hostname "$1"; root=$2; guest=$3; shift 3
mount --make-rprivate /
mount -t sysfs sysfs /sys
for path; do mount --bind "$root$path" "$path"; done
mkdir -p "$root/run"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mkdir -p "$root/run/lock" "$root/run/vmlab/guest"
mount --bind "$guest" "$root/run/vmlab/guest"
mount --rbind "$root/run" /run
ip link set lo up
touch /run/vmlab/ready
trap : TERM HUP INT
while :; do sleep 3600 & wait $! || true; done
"""


def _start_time(pid):
    """Tells a process from a later one with the same number; None if there is none."""
    try:
        fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


class Host:
    def __init__(self, lab, name, address, uuid):
        self.lab, self.name, self.address, self.uuid = lab, name, address, uuid
        self.directory = f"{lab.state}/hosts/{name}"
        self.agent = Agent(self)

    # ------------------------------------------------------------- life
    @property
    def pid(self):
        """Process 1 of the host, as the machine numbers it; None if the host is down."""
        try:
            pid, start = open(f"{self.directory}/init.pid").read().split()
        except (OSError, ValueError):
            return None
        return int(pid) if _start_time(pid) == start else None

    def _write(self, path, text):
        with open(self.directory + path, "w") as f:
            f.write(text)

    def start(self):
        for path, kind in PRIVATE.items():
            if kind == "dir":
                os.makedirs(path, exist_ok=True)
                os.makedirs(self.directory + path)
            else:
                open(path, "a").close()
        self._write("/etc/hostname", self.name + "\n")
        self._write("/etc/machine-id", self.uuid.replace("-", "") + "\n")
        self._write("/etc/hosts", "127.0.0.1 localhost\n198.18.0.1 hostA\n198.18.0.2 hostB\n")
        with open(f"{self.directory}/init.log", "w") as log:
            outer = subprocess.Popen(
                ["unshare", "-m", "-u", "-i", "-n", "-p", "--fork", "--kill-child", "--mount-proc",
                 "bash", "-c", INIT, "vmlab-init", self.name, self.directory,
                 f"{self.lab.state}/guest", *PRIVATE],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        inner = wait_for(lambda: outer.poll() is not None or self._init_of(outer.pid),
                         f"{self.name} to start")
        if inner is True:
            raise LabError(f"{self.name}: {open(f'{self.directory}/init.log').read()}")
        self._write("/init.pid", f"{inner} {_start_time(inner)}")
        self.credentials("good")
        with open(f"{self.lab.state}/serial.log", "ab") as log:
            self.popen(f"{os.path.dirname(__file__)}/../tap.py", self.name,
                       "/run/vmlab/serial.sock", stdout=log, stderr=log)
        wait_for(lambda: os.path.exists(self.path("/run/vmlab/serial.sock")), "the serial tap")

    @staticmethod
    def _init_of(outer):
        for pid in run("pgrep", "-P", outer, check=False).stdout.split():
            if os.path.exists(f"/proc/{pid}/root/run/vmlab/ready"):
                return int(pid)
        return None

    def crash(self):
        """Power failure. With process 1 the kernel ends all others of the host."""
        pid = self.pid
        if pid:
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda: self.pid is None, f"{self.name} to end")

    # -------------------------------------------------------- inside it
    def path(self, path):
        """A file of this host as the machine sees it."""
        return f"/proc/{self.pid}/root{path}"

    def entered(self, argv):
        """The command that runs `argv` on the host."""
        if not self.pid:
            raise LabError(f"{self.name} is not up")
        return ["nsenter", "-t", str(self.pid), "-m", "-u", "-i", "-n", "-p", "--",
                *map(str, argv)]

    def run(self, *argv, **more):
        return run(*self.entered(argv), **more)

    def popen(self, *argv, **more):
        """Starts a program on the host. `.pid` is nsenter's: see inner_pid()."""
        more.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.Popen(self.entered(argv), start_new_session=True, **more)

    @staticmethod
    def inner_pid(popen):
        """The program that popen() started (nsenter only waits for it)."""
        out = wait_for(lambda: run("pgrep", "-P", popen.pid, check=False).stdout,
                       "a program to start", timeout=5)
        return int(out.split()[0])

    def processes(self):
        """{pid as the machine numbers it: argv} of everything that runs on the host."""
        space, found = os.readlink(f"/proc/{self.pid}/ns/pid"), {}
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                if os.readlink(f"/proc/{pid}/ns/pid") == space:
                    argv = open(f"/proc/{pid}/cmdline").read().split("\0")[:-1]
                    if argv:
                        found[int(pid)] = argv
            except OSError:
                pass
        return found

    def programs(self):
        """Names of what runs, without what belongs to the host itself."""
        own = ("vmlab-init", "tap.py", "sleep")
        return sorted(os.path.basename(argv[0]) for argv in self.processes().values()
                      if not any(o in " ".join(argv[:5]) for o in own))

    def sockets(self):
        """[(state, local port, peer's port)] of the host's TCP sockets; state as in ss(8)."""
        names, found = {"0A": "LISTEN", "01": "ESTAB"}, []
        for table in ("tcp", "tcp6"):
            for line in open(f"/proc/{self.pid}/net/{table}").readlines()[1:]:
                _, local, peer, state = line.split()[:4]
                found.append((names.get(state, state), int(local.rpartition(":")[2], 16),
                              int(peer.rpartition(":")[2], 16)))
        return found

    def listening(self):
        return sorted({local for state, local, _ in self.sockets() if state == "LISTEN"})

    # ------------------------------------------------- what can be bent
    def credentials(self, variant):
        """Switches /etc/pki/qemu; `revoked` also gives the other host the revocation list."""
        self.lab.pki.install(self, variant, f"{self.directory}/etc/pki/qemu")
        if variant == "revoked":
            other = self.lab.b if self is self.lab.a else self.lab.a
            run("cp", self.lab.pki.revocation_list(self),
                f"{other.directory}/etc/pki/qemu/ca-crl.pem")

    def image_files(self):
        return sorted(f for f in os.listdir(self.path(IMAGES)) if f != "lost+found")

    def cap_images(self, size):
        """Gives the image directory a file system of its own, of this size; None: as before."""
        backing = f"{self.directory}/images.ext4"
        self.run("umount", IMAGES) if os.path.exists(backing) else None
        run("rm", "-f", backing)
        if size:
            run("truncate", "-s", size, backing)
            run("mkfs.ext4", "-q", "-m", "0", backing)
            device = run("losetup", "-f", "--show", backing).stdout.strip()
            self.run("mount", device, IMAGES)
            run("losetup", "-d", device)  # takes effect when it is unmounted

    def block_device(self, name, mb):
        """A new block device of `mb` MiB (a loop device, gone with the lab)."""
        backing = f"{self.directory}/{name}.device"
        run("truncate", "-s", f"{mb}M", backing)
        return run("losetup", "-f", "--show", backing).stdout.strip()
