# SPDX-License-Identifier: LGPL-2.1-or-later
"""The one link between the two hosts."""
from .util import run


class Link:
    def __init__(self, a, b):
        self.a, self.b = a, b

    def plug(self):
        run("ip", "link", "add", "eth0", "netns", self.a.pid, "type", "veth",
            "peer", "name", "eth0", "netns", self.b.pid)
        for host in (self.a, self.b):
            host.run("ip", "addr", "add", f"{host.address}/24", "dev", "eth0")
            host.run("ip", "link", "set", "eth0", "up")

    def rate(self, rate):
        """Limits both directions: 1gbit, 200mbit ..., or unlimited."""
        for host in (self.a, self.b):
            host.run("tc", "qdisc", "del", "dev", "eth0", "root", check=False)
            if rate != "unlimited":
                host.run("tc", "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", rate,
                         "burst", "256k", "latency", "50ms")

    def cut(self):
        """Pulls the cable: both ends notice."""
        self.a.run("ip", "link", "set", "eth0", "down")

    def drop(self, towards="both"):
        """A black hole: nobody notices. towards: a, b or both."""
        if towards in ("b", "both"):
            self.b.run("iptables", "-I", "INPUT", "-i", "eth0", "-j", "DROP")
        if towards in ("a", "both"):
            self.b.run("iptables", "-I", "OUTPUT", "-o", "eth0", "-j", "DROP")

    def block_ports(self, host, ports):
        """A firewall on `host` that drops what comes in for these TCP ports (49216:49279)."""
        host.run("iptables", "-I", "INPUT", "-i", "eth0", "-p", "tcp", "--syn",
                 "--dport", ports, "-j", "DROP")

    def heal(self):
        """No cut, no black hole, no firewall, no limit."""
        for host in (self.a, self.b):
            host.run("iptables", "-F")
        self.a.run("ip", "link", "set", "eth0", "up")
        self.rate("unlimited")

    def bytes(self):
        """(bytes from a to b, bytes from b to a) so far."""
        for line in open(f"/proc/{self.a.pid}/net/dev"):
            name, _, counters = line.partition(":")
            if name.strip() == "eth0":
                counters = counters.split()
                return int(counters[8]), int(counters[0])
        return 0, 0
