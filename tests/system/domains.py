# SPDX-License-Identifier: LGPL-2.1-or-later
"""Guests that are domains of two real libvirtd, for the system tests."""
import json
import os
import signal

from vmlab import IMAGES, Guest, wait_for
from vmlab.agent import PORT, PORTS
from vmlab.libvirt import Libvirt
from world import Migration, run

LEFT = ("qemu-system-x86_64", "vmferryd", "libvirtd")


class Domains:
    def __init__(self, world):
        self.world, self.lab, self.a, self.b = world, world.lab, world.a, world.b
        self.libvirt = {host: Libvirt(host) for host in world.lab.hosts}
        for libvirt in self.libvirt.values():
            libvirt.start()

    def end(self):
        """No libvirtd and no domain any more: the other tests know nothing of them."""
        for host in self.lab.hosts:
            for pid, argv in host.processes().items():
                if os.path.basename(argv[0]) in LEFT:
                    os.kill(pid, signal.SIGKILL)
            wait_for(lambda: not set(host.programs()) & {"libvirtd", "qemu-system-x86_64"},
                     "libvirtd to end")

    def clean_up(self):
        self.world.link.heal()
        for host in self.lab.hosts:
            if not host.agent.pid:
                host.agent.start()
            for name in ("vm1", "vm2"):
                self.virsh(host, "destroy", name)
                self.virsh(host, "undefine", name)
            host.run("bash", "-c", f"rm -f {IMAGES}/*")

    def kill_libvirtd(self, host):
        for pid, argv in host.processes().items():
            if os.path.basename(argv[0]) == "libvirtd":
                os.kill(pid, signal.SIGKILL)
        wait_for(lambda: "libvirtd" not in host.programs(), "libvirtd to end")

    def virsh(self, host, *args):
        return self.libvirt[host].virsh("-q", *args, check=False).stdout.strip()

    def state(self, host, name="vm1"):
        """"running", "paused", "shut off", "" where there is none."""
        return self.virsh(host, "domstate", name)

    def qmp(self, host, command, name="vm1", **arguments):
        text = json.dumps({"execute": command, "arguments": arguments})
        return json.loads(self.virsh(host, "qemu-monitor-command", name, text) or "{}").get("return")

    def start(self, disks=None, **load):
        load.setdefault("rate", 200)
        guest = Guest(self.lab, "vm1", disks, **load)
        self.libvirt[self.a].start_guest(guest)
        return guest

    def begin(self, *args):
        return Migration(self.a, "vm1", "hostB", "--json", *args)

    def owners(self):
        return [h for h in self.lab.hosts if self.state(h) == "running"]

    # ---------------------------------------------------------- the checks
    def leftovers(self):
        found = []
        for host in self.lab.hosts:
            known = {PORT, 16514, *range(5900, 5910)}
            found += [f"{host.name}: port {p}" for p in host.listening() if p not in known]
            found += [f"{host.name}: process {p}" for p in host.programs() if p not in LEFT]
            found += [f"{host.name}: journal {j}" for j in host.agent.journals()]
            if self.state(host) not in ("running", "paused"):
                continue
            found += [f"{host.name}: object {o['name']}" for o in
                      self.qmp(host, "qom-list", path="/objects") or []
                      if o["name"].startswith("vmferry")]
            found += [f"{host.name}: export {e['id']}"
                      for e in self.qmp(host, "query-block-exports") or []]
            found += [f"{host.name}: bitmap {b.get('name')}"
                      for n in self.qmp(host, "query-named-block-nodes", flat=True) or []
                      for b in n.get("dirty-bitmaps", [])]
        return found

    def assert_clean(self, timeout=40):
        wait_for(lambda: not self.leftovers(), lambda: f"leftovers to go: {self.leftovers()}",
                 timeout, 0.1)

    def assert_at(self, host, guest, disks=None):
        """The guest runs there, nowhere else, and has lost nothing."""
        other = self.lab.other(host)
        wait_for(lambda: self.owners() == [host], lambda: f"one owner: {self.owners()}", 40)
        assert self.state(other) in ("", "shut off"), self.state(other)
        before = len(guest.beats())
        guest.wait_beats(before + 20)
        assert guest.beats()[-1].host == host.name
        self.assert_clean()
        self.virsh(host, "suspend", "vm1")
        assert self.state(host) == "paused"
        beat = guest.beats()[-1]
        self.virsh(host, "destroy", "vm1")
        results = guest.verify(guest.image_paths(disks), host, beat)
        assert all(r["ok"] for r in results), results
        assert not guest.complaints(), guest.complaints()[:3]


__all__ = ["Domains", "IMAGES", "PORTS", "run", "wait_for"]
