# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the system tests share: guests that are reused while they are unharmed, the command, and
the checks that count in every test."""
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.realpath(f"{os.path.dirname(__file__)}/../lab"))
from vmlab import IMAGES, Disk, Guest, run, wait_for
from vmlab.agent import PORT, PORTS

# Nothing of this may ever be seen on a terminal or in a log.
NOISE = re.compile(r"CRITICAL|WARNING \*\*|[Aa]ssertion|Sanitizer|Segmentation|core dumped|"
                   r"runtime error|double free|\(null\)")

EXPECTED = ("qemu-system-x86_64", "vmferryd")


class Outcome:
    """How one `vmferry migrate` ended."""

    def __init__(self, returncode, stdout, stderr):
        self.code, self.stdout, self.stderr = returncode, stdout, stderr
        self.lines = [json.loads(line) for line in stdout.splitlines() if line.startswith("{")]
        self.result = self.lines[-1] if self.lines else {}
        assert not NOISE.search(stderr), stderr

    @property
    def message(self):
        return self.result.get("error") or (self.stderr.strip().splitlines() or [""])[-1]

    def __repr__(self):
        return f"exit status {self.code}, {self.message!r}, stderr {self.stderr!r}"

    def check(self, code, *words):
        """The exit status, and one clear line that has all `words` (each a pattern)."""
        assert self.code == code, self
        for word in words:
            assert re.search(word, self.message, re.IGNORECASE), f"no {word!r} in: {self}"
        if code:
            assert self.message and "\n" not in self.message, self
        return self


class Migration:
    """`vmferry migrate` in the background."""

    def __init__(self, host, *args):
        self.host = host
        self.process = host.agent.popen("migrate", *args)

    def finish(self, timeout=120):
        try:
            out, err = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            raise
        return Outcome(self.process.returncode, out, err)

    def signal(self, number):
        """To the command, unless it has ended."""
        for pid in run("pgrep", "-P", self.process.pid, check=False).stdout.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), number)


class World:
    def __init__(self, lab):
        self.lab, self.a, self.b, self.link = lab, lab.a, lab.b, lab.link
        self.qemus, self.kept, self.spec = [], None, None

    # ---------------------------------------------------------- each test
    def heal(self):
        """Before each test: all is well, both agents run."""
        self.link.heal()
        for host in self.lab.hosts:
            host.credentials("good")
            host.agent.configure()
            if host.agent.pid:
                host.agent.end()
            host.agent.start()

    def clean_up(self):
        """After each test: only a source guest that is as it was is kept."""
        for qemu in self.qemus:
            if qemu is not self.kept or not qemu.running() or qemu.leftovers():
                qemu.end()
        self.qemus = [q for q in self.qemus if q.alive]
        if not self.qemus:
            self.kept = None
        for host in self.lab.hosts:
            for pid, argv in host.processes().items():
                if os.path.basename(argv[0]) in host.programs() and \
                        os.path.basename(argv[0]) not in EXPECTED:
                    os.kill(pid, signal.SIGKILL)
            host.cap_images(None)
            keep = f"! -name {self.kept.guest.name}-d*" if self.kept and host is self.a else ""
            host.run("bash", "-c", f"find {IMAGES} -mindepth 1 -maxdepth 1 {keep} -exec rm -rf {{}} +")

    def source(self, disks=None, keep=True, **load):
        """The running guest vm1 on hostA; one that an earlier test left unharmed if it is alike."""
        spec = (repr(disks), repr(load))
        if self.kept and self.kept.running() and self.spec == spec and keep:
            self.kept.guest.wait_beats()
            self.kept.qmp.forget_events()
            return self.kept
        self.retire()
        load.setdefault("rate", 200)
        machine, extra = load.pop("machine", None), load.pop("extra", ())
        qemu = Guest(self.lab, "vm1", disks, **load).boot(self.a, machine=machine, extra=extra)
        self.qemus.append(qemu)
        if keep:
            self.kept, self.spec = qemu, spec
        return qemu

    def destination(self, source, host=None, **how):
        """A QEMU on hostB that waits for the guest of `source`."""
        qemu = source.guest.expect(host or self.b, **how)
        self.qemus.append(qemu)
        return qemu

    def pair(self, disks=None, **load):
        source = self.source(disks, **load)
        return source, self.destination(source)

    def retire(self):
        """Ends the kept guest, and proves that all the failures it saw did it no harm."""
        if self.kept and self.kept.running():
            results = self.kept.guest.stop_and_verify(self.kept)
            assert all(r["ok"] for r in results), results
        for qemu in self.qemus:
            qemu.end()
        self.qemus, self.kept = [], None

    # --------------------------------------------------------- the command
    def arguments(self, source, args=(), json_lines=True):
        name = source.guest.name
        peer = self.lab.other(source.host)
        return [name, peer.name, "--qmp", source.socket, "--dest-qmp", f"/run/vmlab/{name}-in.qmp",
                *(["--json"] if json_lines else []), *args]

    def start(self, source, *args):
        return Migration(source.host, *self.arguments(source, args))

    def migrate(self, source, *args, timeout=120):
        return self.start(source, *args).finish(timeout)

    def job(self, host=None):
        """The newest job that an agent knows."""
        jobs = (host or self.a).agent.jobs()
        return jobs[-1] if jobs else None

    def wait_state(self, *states, host=None, timeout=60):
        """Waits until the newest job is in one of `states`."""
        seen = []

        def there():
            job = self.job(host)
            seen.append(job and job["state"])
            return job if job and job["state"] in states else None
        return wait_for(there, lambda: f"a job in {states}; last {seen[-1]}", timeout, 0.005)

    def wait_copying(self, source, mb=4):
        """Waits until the first copy is under way: some of it is over the link."""
        start = sum(self.link.bytes())
        wait_for(lambda: source.qmp("query-block-exports"), "the first export")
        wait_for(lambda: sum(self.link.bytes()) > start + mb * 1e6, "bytes on the link")

    def slow(self, rate="80mbit"):
        """A link on which the seeding takes many seconds."""
        self.link.rate(rate)

    # ---------------------------------------------------------- the checks
    def assert_clean(self, *hosts, timeout=15):
        """No object, export, bitmap, job or descriptor in any QEMU; no port, process or journal."""
        def left():
            found = []
            for host in hosts or self.lab.hosts:
                ports = [p for p in host.listening() if p != PORT]
                busy = [s for s in host.sockets() if s[0] == "ESTAB" and PORT not in s[1:]]
                other = [p for p in host.programs() if p not in EXPECTED]
                found += [f"{host.name}: {x}" for x in
                          [f"port {p}" for p in ports] + [f"connection {s}" for s in busy] +
                          [f"process {p}" for p in other] +
                          [f"journal {j}" for j in host.agent.journals()]]
            for qemu in self.qemus:
                if qemu.alive and qemu.host in (hosts or self.lab.hosts):
                    found += [f"{qemu.host.name}: {x} in QEMU" for x in qemu.leftovers()]
            return found
        wait_for(lambda: not left(), lambda: f"leftovers to go: {left()}", timeout, 0.1)

    def assert_at_source(self, source, destination=None):
        """The guest goes on at the source as it was, and nowhere else."""
        wait_for(source.running, lambda: f"the source to run; it is {source.status()}", 15)
        source.guest.wait_beats(timeout=15)
        assert source.guest.beats()[-1].host == source.host.name
        if destination:
            assert destination.status() in ("inmigrate", "gone"), destination.status()
        assert not source.guest.complaints()

    def assert_failed(self, source, destination, outcome, *words, code=1):
        """A failure as it ought to be: one line, the guest at the source, no trace."""
        outcome.check(code, *words)
        self.assert_at_source(source, destination)
        self.assert_clean()

    def assert_moved(self, source, destination, outcome=None):
        """The guest runs at the destination only, has lost nothing, and there is no trace."""
        if outcome is not None:
            outcome.check(0)
        wait_for(destination.running, lambda: f"the destination to run: {destination.status()}")
        wait_for(lambda: not source.alive, "the source's QEMU to end", 15)
        guest = destination.guest
        before = len(guest.beats())
        guest.wait_beats(before + 20)
        assert guest.beats()[-1].host == destination.host.name
        self.assert_clean()
        self.assert_nothing_lost(destination)

    def assert_nothing_lost(self, qemu):
        """Ends the guest and compares its disks with all that it had acknowledged."""
        guest = qemu.guest
        results = guest.stop_and_verify(qemu)
        assert all(r["ok"] for r in results), results
        assert not guest.complaints(), guest.complaints()[:3]
        if self.kept and self.kept.guest is guest:
            self.kept = None

    def owners(self, *qemus):
        """Where the guest runs."""
        return [q.host.name for q in qemus if q.running()]

    def assert_one_owner(self, source, destination, timeout=60):
        """However it ended: exactly one side runs the guest in the end, and never were there two
        (both would have written to the log at the same time)."""
        qemus = (source, destination)
        wait_for(lambda: len(self.owners(*qemus)) == 1,
                 lambda: f"one owner; {[q.status() for q in qemus]}", timeout)
        time.sleep(0.3)
        owners = self.owners(*qemus)
        assert len(owners) == 1, owners
        assert len(source.guest.downtime_ms()) <= 1
        return source if owners == [source.host.name] else destination


__all__ = ["Disk", "Guest", "IMAGES", "Migration", "Outcome", "PORT", "PORTS", "World", "run",
           "wait_for"]
