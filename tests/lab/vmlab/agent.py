# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmferryd on one host, and the vmferry command beside it."""
import os
import signal
import socket
import subprocess

from .pki import distinguished_name
from .qmp import Qmp
from .util import LabError, wait_for

PORT = 10810
PORTS = (49216, 49279)
CONTROL = "/run/vmferry/control"


class Agent:
    def __init__(self, host):
        self.host = host
        self.log_file = f"{host.directory}/vmferryd.log"

    # ------------------------------------------------------ the program
    def configure(self, dn=None, target_dirs="/var/lib/vmlab/images", qmp_dirs="/run/vmlab",
                  ports="%d-%d" % PORTS, peers=True):
        """Writes vmferryd.conf; it counts from the next start on."""
        peer = self.host.lab.other(self.host).name
        text = (f"[agent]\nlisten={self.host.address}:{PORT}\nports={ports}\n"
                f"tls-dir=/etc/pki/qemu\ngroup=root\n")
        if peers:
            text += (f"\n[peer {peer}]\ndn={dn or distinguished_name(peer)}\n"
                     f"target-dirs={target_dirs}\nqmp-dirs={qmp_dirs}\n")
        with open(f"{self.host.directory}/etc/vmferry/vmferryd.conf", "w") as f:
            f.write(text)

    def start(self, wait=True):
        os.makedirs(self.host.path("/run/vmferry"), exist_ok=True)
        with open(self.log_file, "ab") as log:
            started = self.host.popen(self.host.lab.program("vmferryd"), stdout=log, stderr=log)
        if wait:
            wait_for(lambda: self.ready() or started.poll() is not None, "vmferryd to be ready")
            if started.poll() is not None:
                raise LabError(f"vmferryd on {self.host.name} ended: {self.log()[-2000:]}")
        return started

    def ready(self):
        with socket.socket(socket.AF_UNIX) as s:
            try:
                s.connect(self.host.path(CONTROL))
            except OSError:
                return False
        return self.pid is not None

    @property
    def pid(self):
        for pid, argv in self.host.processes().items():
            if os.path.basename(argv[0]) == "vmferryd":
                return pid
        return None

    def end(self, how=signal.SIGTERM):
        pid = self.pid
        if pid:
            os.kill(pid, how)
            wait_for(lambda: self.pid != pid, f"vmferryd on {self.host.name} to end", timeout=60)

    def kill(self):
        self.end(signal.SIGKILL)

    def restart(self):
        self.end()
        self.start()

    def log(self):
        try:
            return open(self.log_file, errors="replace").read()
        except OSError:
            return ""

    def jobs(self):
        """The job objects of the agent, oldest first."""
        control = Qmp(self.host.path(CONTROL), hello=None)
        try:
            return control("query-jobs")
        finally:
            control.close()

    def journals(self):
        """Jobs that the agent still remembers on disk."""
        try:
            return sorted(os.listdir(f"{self.host.directory}/var/lib/vmferry/jobs"))
        except FileNotFoundError:
            return []

    # ------------------------------------------------------ the command
    def popen(self, *args, **more):
        """vmferry ARGS on the host, in the background."""
        more.setdefault("stdout", subprocess.PIPE)
        more.setdefault("stderr", subprocess.PIPE)
        return self.host.popen(self.host.lab.program("vmferry"), *args, text=True, **more)

    def vmferry(self, *args, timeout=120):
        """vmferry ARGS on the host; never fails by itself: look at .returncode."""
        return self.host.run(self.host.lab.program("vmferry"), *args, check=False,
                             timeout=timeout)
