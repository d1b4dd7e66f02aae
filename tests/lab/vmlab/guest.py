# SPDX-License-Identifier: LGPL-2.1-or-later
"""The tiny guest, the QEMUs that it runs in, and the proof that its disks lost nothing."""
import dataclasses
import json
import os
import re
import signal
import typing

from .host import IMAGES
from .qmp import Qmp, QmpError
from .util import LabError, run, wait_for

BEAT = re.compile(rb"^(\d+) (\w+) HB (\S+) (\d+) t=(\d+) seq=([\d,]+) fl=([\d,]+) "
                  rb"lat=([\d,]+) err=([\d,]+) rd=([\d,]+)$")
COMPLAINT = re.compile(rb"IOERR|CORRUPT|OPEN|EXIT|panic|Oops|rcu.*stall")


@dataclasses.dataclass
class Disk:
    format: str = "raw"
    mb: int = 64
    path: str = None  # a block device; else a file in the image directory
    iothread: bool = False


class Beat(typing.NamedTuple):
    """One line of the guest, every 10 ms; lists have one entry for each disk."""
    ns: int           # the machine's monotonic clock
    host: str
    number: int
    acknowledged: tuple
    flushed: tuple
    latency_us: tuple  # longest operation since the beat before
    errors: tuple


def accelerator():
    return "kvm" if os.environ.get("VMFERRY_ACCEL") == "kvm" else "tcg"


class Qemu:
    """One QEMU of a guest on one host, driven over QMP by whoever likes."""

    def __init__(self, guest, host, disks, incoming, machine, extra):
        self.guest, self.host, self.incoming = guest, host, incoming
        self.disks = guest.image_paths(disks)
        self.machine, self.extra = machine or "q35", extra
        self.socket = f"/run/vmlab/{guest.name}{'-in' if incoming else ''}.qmp"
        self.own_socket = self.socket.replace(".qmp", ".lab")
        self.log_file = f"{host.directory}/qemu-{guest.name}.log"
        self.process = self.qmp = self.pid = None

    def _argv(self):
        guest = self.guest
        argv = ["qemu-system-x86_64", "-name", guest.name, "-nodefaults", "-no-user-config",
                "-display", "none", "-machine", f"{self.machine},accel={accelerator()}",
                "-m", guest.memory, "-kernel", "/run/vmlab/guest/vmlinuz",
                "-initrd", "/run/vmlab/guest/initrd.gz", "-append", guest.command_line(),
                "-chardev", "socket,id=serial,path=/run/vmlab/serial.sock",
                "-serial", "chardev:serial",
                "-qmp", f"unix:{self.socket},server=on,wait=off",
                "-qmp", f"unix:{self.own_socket},server=on,wait=off"]
        for i, (path, disk) in enumerate(self.disks):
            cache = {"direct": True}
            node = {"driver": disk.format, "node-name": f"d{i}", "cache": cache,
                    "discard": "unmap", "file": {
                        "driver": "host_device" if disk.path else "file", "filename": path,
                        "aio": "native", "cache": cache, "discard": "unmap"}}
            device = f"virtio-blk-pci,drive=d{i},id=vd{i}"
            if disk.iothread:
                argv += ["-object", f"iothread,id=io{i}"]
                device += f",iothread=io{i}"
            argv += ["-blockdev", json.dumps(node), "-device", device]
        return argv + (["-incoming", "defer"] if self.incoming else []) + list(self.extra)

    def start(self):
        self.host.run("rm", "-f", self.socket, self.own_socket)
        with open(self.log_file, "ab") as log:
            self.process = self.host.popen(*self._argv(), stdout=log, stderr=log)
        self.qmp = wait_for(self._connect, f"QEMU {self.guest.name} on {self.host.name}")
        self.pid = self.host.inner_pid(self.process)
        self.baseline = self.inventory()
        return self

    def _connect(self):
        if self.process.poll() is not None:
            raise LabError(f"QEMU on {self.host.name}: {open(self.log_file).read()[-1000:]}")
        try:
            return Qmp(self.host.path(self.own_socket))
        except (FileNotFoundError, ConnectionRefusedError):
            return None

    @property
    def alive(self):
        return self.process.poll() is None

    def status(self):
        """query-status' word; `gone` without a QEMU."""
        try:
            return self.qmp("query-status")["status"] if self.alive else "gone"
        except (QmpError, OSError):
            return "gone"

    def running(self):
        return self.status() == "running"

    def end(self, how=signal.SIGKILL):
        if self.alive:
            try:
                os.kill(self.pid, how)
            except ProcessLookupError:
                pass
        self.process.wait(30)

    def inventory(self):
        """What a migration could leave in this QEMU."""
        objects = [f"object {o['name']}" for o in self.qmp("qom-list", path="/objects")
                   if o["name"] != "type"]
        exports = [f"export {e['id']}" for e in self.qmp("query-block-exports")]
        jobs = [f"job {j['device']}" for j in self.qmp("query-block-jobs")]
        bitmaps = [f"bitmap {b.get('name')} on {n['node-name']}"
                   for n in self.qmp("query-named-block-nodes", flat=True)
                   for b in n.get("dirty-bitmaps", [])]
        return sorted(objects + exports + jobs + bitmaps + self._descriptors())

    def _descriptors(self):
        """TCP sockets and open images: what `getfd` may have brought."""
        tcp = {line.split()[9] for table in ("tcp", "tcp6")
               for line in open(f"/proc/{self.pid}/net/{table}").readlines()[1:]}
        found = []
        for fd in os.listdir(f"/proc/{self.pid}/fd"):
            try:
                target = os.readlink(f"/proc/{self.pid}/fd/{fd}")
            except OSError:
                continue
            if target.startswith("socket:[") and target[8:-1] in tcp:
                found.append("TCP socket")
            elif any(target == path for path, _ in self.disks):
                found.append(f"descriptor of {target}")
        return found

    def leftovers(self):
        try:
            left = self.inventory()
        except (QmpError, OSError):  # it is about to end
            self.process.wait(10)
            return []
        for known in self.baseline:
            if known in left:
                left.remove(known)
        return left


class Guest:
    """A guest and its load: `rate` writes a second on each disk (0: flat out).

    QEMU 7.2's TCG loses memory pages that are written while it looks for dirty ones: it clears the
    mark of a page just before it lets the guest write there without a mark, and all that the guest
    writes there until its TLB is flushed stays behind. Of plain migrations by QEMU alone up to two
    in three ended in a guest's panic. `pti` has the guest flush its TLB with every system call:
    none of ten did then. It costs a guest that writes flat out half its speed."""

    def __init__(self, lab, name="vm1", disks=None, rate=200, memory=192, ws_mb=32, ram_mb=32,
                 ram_mbps=0, pti=True):
        self.lab, self.name = lab, name
        self.disks = disks or [Disk("raw"), Disk("qcow2")]
        self.rate, self.memory, self.ws_mb = rate, memory, ws_mb
        self.ram_mb, self.ram_mbps, self.pti = ram_mb, ram_mbps, pti
        self._log_at, self._beats, self._complaints = 0, [], []
        if os.path.exists(self._log):
            self._log_at = os.path.getsize(self._log)

    def command_line(self):
        return (f"console=ttyS0 quiet panic=-1 wl.name={self.name} wl.disks={len(self.disks)} "
                f"wl.rate={self.rate} wl.ws_mb={self.ws_mb} wl.ram_mb={self.ram_mb} "
                f"wl.ram_mbps={self.ram_mbps}{' pti=on' if self.pti else ''}")

    # ------------------------------------------------------------ its QEMUs
    def base(self, i):
        """The raw image that disk `i` begins with."""
        path = f"{self.lab.state}/base-{i}-{self.disks[i].mb}.raw"
        if not os.path.exists(path):
            run(self.lab.workload, "mkbase", path, i, self.disks[i].mb)
        return path

    def image_paths(self, disks=None):
        """[(path, Disk)] as a host sees them."""
        return [(d.path or f"{IMAGES}/{self.name}-d{i}.{d.format}", d)
                for i, d in enumerate(disks or self.disks)]

    def create_images(self, host):
        """The disks as they are before the first boot."""
        for i, (path, disk) in enumerate(self.image_paths()):
            outside = path if disk.path else host.path(path)
            if not disk.path:
                run("rm", "-f", outside)
            run("qemu-img", "convert", *(["-n"] if disk.path else []), "-f", "raw",
                "-O", disk.format, self.base(i), outside)

    def create_targets(self, host, disks=None):
        """New, empty images for the guest to come."""
        for path, disk in self.image_paths(disks):
            if not disk.path:
                host.run("qemu-img", "create", "-q", "-f", disk.format, path, f"{disk.mb}M")

    def boot(self, host, create=True, machine=None, extra=()):
        """New disks on `host`, and the guest started from them; returns when its load runs."""
        qemu = Qemu(self, host, self.disks, False, machine, extra)
        if create:
            self.create_images(host)
        before = len(self.beats())
        qemu.start()
        self.wait_beats(before, timeout=120)
        return qemu

    def expect(self, host, disks=None, create=True, machine=None, extra=()):
        """A QEMU on `host` that waits for the guest; with `create` on new, empty images."""
        if create:
            self.create_targets(host, disks)
        return Qemu(self, host, disks or self.disks, True, machine, extra).start()

    def remove_images(self):
        for host in self.lab.hosts:
            host.run("bash", "-c", f"rm -f {IMAGES}/{self.name}-d*")

    # ------------------------------------------------------- what it prints
    @property
    def _log(self):
        return f"{self.lab.state}/serial.log"

    def _read_log(self):
        with open(self._log, "rb") as f:
            f.seek(self._log_at)
            data = f.read()
        end = data.rfind(b"\n") + 1
        self._log_at += end
        for line in data[:end].splitlines():
            m = BEAT.match(line)
            if m and m[3].decode() == self.name:
                lists = [tuple(map(int, m[i].split(b","))) for i in range(6, 10)]
                self._beats.append(Beat(int(m[1]), m[2].decode(), int(m[4]), *lists))
            elif not m and COMPLAINT.search(line):
                self._complaints.append(line.decode(errors="replace"))

    def beats(self):
        self._read_log()
        return self._beats

    def complaints(self):
        """Errors that guests have printed (of all guests of the lab)."""
        self._read_log()
        return self._complaints

    def wait_beats(self, before=None, n=5, timeout=30):
        """Waits for `n` more heartbeats (than `before`) that acknowledge writes on each disk."""
        before = len(self.beats()) if before is None else before
        wait_for(lambda: len(self.beats()) >= before + n and min(self._beats[-1].acknowledged) > 0,
                 f"the heartbeat of {self.name}; {self._complaints[-3:]}", timeout)

    def downtime_ms(self, since_ns=0):
        """The silence at each change of host."""
        beats = [b for b in self.beats() if b.ns >= since_ns]
        return [round((y.ns - x.ns) / 1e6, 1) for x, y in zip(beats, beats[1:])
                if x.host != y.host]

    def writes_per_s(self, from_ns, to_ns):
        beats = [b for b in self.beats() if from_ns <= b.ns <= to_ns]
        if len(beats) < 2:
            return None
        writes = sum(beats[-1].acknowledged) - sum(beats[0].acknowledged)
        return writes / ((beats[-1].ns - beats[0].ns) / 1e9)

    # --------------------------------------------------------------- proof
    def verify(self, image_paths, host, beat):
        """Compares each image on `host` with what the guest had been told is written."""
        results = []
        for i, (path, disk) in enumerate(image_paths):
            image = path if disk.path else host.path(path)
            if disk.format != "raw":
                raw = f"{self.lab.state}/verify-{self.name}.raw"
                run("qemu-img", "convert", "-f", disk.format, "-O", "raw", image, raw)
                image = raw
            result = run(self.lab.workload, "verify", image, self.base(i), i,
                         beat.acknowledged[i], beat.flushed[i], disk.mb, self.ws_mb, check=False)
            if not result.stdout:
                raise LabError(f"verify: {result.stderr}")
            results.append(json.loads(result.stdout))
        return results

    def stop_and_verify(self, qemu):
        """Stops the guest for good and returns what verify() finds on each disk."""
        qemu.qmp("stop")
        beat = self.beats()[-1]
        qemu.end(signal.SIGTERM)
        return self.verify(qemu.disks, qemu.host, beat)
