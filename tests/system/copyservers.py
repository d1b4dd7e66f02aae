# SPDX-License-Identifier: LGPL-2.1-or-later
"""NBD servers for the tests of `vmferry copy`, each a context manager that ends what it began, on
UNIX sockets or, with TLS, on loopback ports."""
import collections
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess

import pytest

from vmlab import run, wait_for
from vmlab.pki import Pki

BUILD = os.environ.get("VMFERRY_BUILD") or os.path.realpath(f"{os.path.dirname(__file__)}/../../build")

Host = collections.namedtuple("Host", "name address")
LOCAL = Host("localhost", "127.0.0.1")


class Credentials:
    """Certificates of one CA for both sides, and a file of pre-shared keys."""

    def __init__(self, directory):
        pki = Pki(f"{directory}/store")
        self.good = f"{directory}/good"
        self.other = f"{directory}/other-ca"
        pki.install(LOCAL, "good", self.good)
        pki.install(LOCAL, "other-ca", self.other)
        self.psk = f"{directory}/keys.psk"
        with open(self.psk, "w") as f:
            f.write("alice:" + os.urandom(32).hex() + "\n")
        os.chmod(self.psk, 0o600)


def free_port():
    with socket.socket() as s:
        s.bind((LOCAL.address, 0))
        return s.getsockname()[1]


class Server:
    """A program that serves one export.  `tls`: the directory of its certificates; `tcp`: without
    them."""
    count = 0
    host = LOCAL.address

    def __init__(self, directory, name="", tls=None, tcp=False):
        Server.count += 1
        self.directory, self.name, self.tls = str(directory), name, tls
        self.socket = f"{directory}/nbd{Server.count}.sock"
        self.port = free_port() if tls or tcp else None
        self.process = None
        self.log = f"{directory}/server{Server.count}.log"

    # What each program is called with.
    def argv(self):
        raise NotImplementedError

    def uri(self, name=None, tls=None):
        name = self.name if name is None else name
        if self.tls:
            return f"nbds://{LOCAL.address}:{self.port}/{name}?tls-certificates={tls or self.tls}"
        if self.port:
            return f"nbd://{LOCAL.address}:{self.port}/{name}"
        return f"nbd+unix:///{name}?socket={self.socket}"

    def address(self):
        if self.port:
            return socket.AF_INET, (LOCAL.address, self.port)
        return socket.AF_UNIX, self.socket

    def answers(self):
        """Without a connection, which some programs would take for their only client."""
        assert self.process.poll() is None, open(self.log).read()
        return self.listens()

    def listens(self):
        if self.port:
            tables = [open(f"/proc/net/{name}").read() for name in ("tcp", "tcp6")
                      if os.path.exists(f"/proc/net/{name}")]
            return re.search(f":{self.port:04X} 0+:0000 0A", "".join(tables))
        return any(line.endswith(self.socket + "\n") for line in open("/proc/net/unix"))

    def start(self):
        program = str(self.argv()[0])
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed")
        if not self.port and os.path.exists(self.socket):
            os.unlink(self.socket)
        with open(self.log, "a") as log:
            self.process = subprocess.Popen([str(a) for a in self.argv()], stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log, start_new_session=True)
        wait_for(self.answers, lambda: f"{self.argv()}: {open(self.log).read()}")
        return self

    def stop(self, how=signal.SIGKILL):
        """Its children, too: some programs have one for each client."""
        if self.process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, how)
            self.process.wait(30)

    def restart(self):
        self.stop()
        return self.start()

    __enter__ = start

    def __exit__(self, *_):
        self.stop()


class QemuNbd(Server):
    def __init__(self, directory, image, fmt="raw", name="disk", tls=None, writable=False,
                 bitmap=None, extra=()):
        super().__init__(directory, name, tls)
        self.image, self.format, self.writable = image, fmt, writable
        self.bitmap, self.extra = bitmap, extra

    def argv(self):
        where = ("-b", LOCAL.address, "-p", self.port, "--tls-creds", "t", "--object",
                 f"tls-creds-x509,id=t,endpoint=server,dir={self.tls},verify-peer=yes") \
            if self.tls else ("-k", self.socket)
        return ("qemu-nbd", "-t", "-e", "8", "--discard=unmap", "--detect-zeroes=unmap",
                "-f", self.format, "-x", self.name, *where,
                *(() if self.writable else ("-r",)), *(("-B", self.bitmap) if self.bitmap else ()),
                *self.extra, self.image)


class StorageDaemon(Server):
    """QEMU's block layer without a guest."""
    program = ("qemu-storage-daemon",)

    def __init__(self, directory, image, fmt="raw", name="disk", tls=None):
        super().__init__(directory, name, tls)
        self.image, self.format = image, fmt

    def argv(self):
        tls = ("--object", f"tls-creds-x509,id=t,endpoint=server,dir={self.tls},verify-peer=yes") \
            if self.tls else ()
        where = f"inet,addr.host={LOCAL.address},addr.port={self.port},tls-creds=t" if self.tls \
            else f"unix,addr.path={self.socket}"
        return (*self.program, *tls, "--blockdev",
                f"driver={self.format},node-name=d,read-only=on,file.driver=file,"
                f"file.filename={self.image}", "--nbd-server", f"addr.type={where}",
                "--export", f"type=nbd,id=e,node-name=d,name={self.name}")


class Emulator(Server):
    """The server inside of a system emulator, started over QMP."""

    def __init__(self, directory, image, fmt="raw", name="disk", tls=None, bitmap=None):
        super().__init__(directory, name, tls)
        self.image, self.format, self.bitmap = image, fmt, bitmap
        self.qmp_socket = f"{directory}/qmp{Server.count}.sock"
        self.listening = False

    def argv(self):
        return ("qemu-system-x86_64", "-machine", "none", "-nodefaults", "-display", "none",
                "-S", "-qmp", f"unix:{self.qmp_socket},server=on,wait=off", "-blockdev",
                f"driver={self.format},node-name=d,file.driver=file,file.filename={self.image}",
                *(("-object", f"tls-creds-x509,id=t,endpoint=server,dir={self.tls},"
                   "verify-peer=yes") if self.tls else ()))

    def answers(self):
        if not self.listening:
            assert self.process.poll() is None, open(self.log).read()
            if not os.path.exists(self.qmp_socket):
                return False
            self.serve()
            self.listening = True
        return super().answers()

    def start(self):
        self.listening = False
        if os.path.exists(self.qmp_socket):
            os.unlink(self.qmp_socket)
        return super().start()

    __enter__ = start

    def serve(self):
        address = {"type": "inet", "data": {"host": LOCAL.address, "port": str(self.port)}} \
            if self.tls else {"type": "unix", "data": {"path": self.socket}}
        with socket.socket(socket.AF_UNIX) as s:
            wait_for(lambda: s.connect_ex(self.qmp_socket) in (0, 106), "QMP")
            with s.makefile("rw") as stream:
                self.execute(stream, "qmp_capabilities")
                if self.bitmap:
                    self.execute(stream, "block-dirty-bitmap-add", node="d", name=self.bitmap)
                self.execute(stream, "nbd-server-start", addr=address,
                             **({"tls-creds": "t"} if self.tls else {}))
                self.execute(stream, "block-export-add", type="nbd", id="e",
                             **{"node-name": "d", "name": self.name})

    @staticmethod
    def execute(stream, command, **arguments):
        stream.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        stream.flush()
        while True:
            answer = json.loads(stream.readline())
            assert "error" not in answer, answer
            if "return" in answer:
                return answer["return"]


class Nbdkit(Server):
    """`filters`: their names; `options`: of nbdkit itself; `args`: of plugin and filters."""

    def __init__(self, directory, plugin, *args, filters=(), options=(), name="", tls=None,
                 tcp=False):
        super().__init__(directory, name, tls, tcp)
        self.args, self.plugin, self.filters, self.options = args, plugin, filters, options

    def argv(self):
        where = ("--ipaddr", self.host, "-p", self.port) if self.port else ("-U", self.socket)
        if self.tls:
            where += ("--tls=require", "--tls-verify-peer", f"--tls-certificates={self.tls}")
        return ("nbdkit", "-f", *where, *self.options, *(f"--filter={f}" for f in self.filters),
                self.plugin, *self.args)


class NbdServer(Server):
    """The reference implementation; it knows simple replies only."""

    def __init__(self, directory, image, name="disk", tls=None, writable=False):
        super().__init__(directory, name, tls)
        self.image, self.writable = image, writable
        self.pid_file = f"{directory}/server{Server.count}.pid"

    def argv(self):
        config = f"{self.directory}/nbd-server{self.socket.rpartition('nbd')[2]}.conf"
        with open(config, "w") as f:
            f.write("[generic]\n" + (
                f"listenaddr = {LOCAL.address}\nport = {self.port}\nforce_tls = true\n"
                f"certfile = {self.tls}/server-cert.pem\nkeyfile = {self.tls}/server-key.pem\n"
                f"cacertfile = {self.tls}/ca-cert.pem\n" if self.tls
                else f"unixsock = {self.socket}\nport = {free_port()}\n"
                     f"listenaddr = {LOCAL.address}\n") +
                    f"[{self.name}]\nexportname = {self.image}\n"
                    f"readonly = {'false' if self.writable else 'true'}\n")
        return "nbd-server", "-C", config, "-p", self.pid_file

    def answers(self):
        """It leaves its parent; in the foreground it would serve one client and end."""
        return os.path.exists(self.pid_file) and self.listens()

    def start(self):
        if os.path.exists(self.pid_file):
            os.unlink(self.pid_file)
        return super().start()

    __enter__ = start

    def stop(self, how=signal.SIGKILL):
        super().stop(how)
        with contextlib.suppress(OSError):
            os.killpg(int(open(self.pid_file).read()), how)


class Hostile(Server):
    """The unit tests' fake server, which breaks the protocol in one chosen way."""
    program = f"{BUILD}/tests/unit/hostile-nbd"

    def __init__(self, directory, fault, *args, tls=None):
        super().__init__(directory, "", tls)
        self.fault, self.args = fault, args
        self.source = f"{directory}/hostile{Server.count}.raw"

    def argv(self):
        return (self.program, "--fault", self.fault, "--source", self.source,
                *(("--tls", self.tls, "--tcp") if self.tls else ("--socket", self.socket)),
                *self.args)

    def answers(self):
        assert self.process.poll() is None, open(self.log).read()
        ready = [line for line in open(self.log) if line.startswith("ready")]
        if ready and self.tls:
            self.port = int(ready[-1].split()[1])
        return ready

    @classmethod
    def faults(cls):
        return run(cls.program, "--list").stdout.split()
