# SPDX-License-Identifier: LGPL-2.1-or-later
"""A link between `vmferry copy` and a server, which counts, stands still or breaks when a test
wants it to."""
import os
import socket
import threading

from vmlab import wait_for


class Relay:
    """Passes on what is said on a UNIX socket.  `limit`: after so many bytes from the server it
    stands still, as a dead network does; None: never."""

    def __init__(self, server, limit=None):
        self.server = server
        self.socket = f"{server.socket}.relay"
        self.limit = limit
        self.bytes = 0  # from the server
        self.stalled = False
        self.open = set()
        self.threads = []
        self.changed = threading.Condition()
        self.listener = None

    def uri(self, name=None):
        return f"nbd+unix:///{self.server.name if name is None else name}?socket={self.socket}"

    def __enter__(self):
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.socket)
        self.listener.listen(16)
        threading.Thread(target=self.accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        os.unlink(self.socket)
        self.cut()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            try:
                server.connect(self.server.socket)
            except OSError:
                client.close()
                continue
            with self.changed:
                self.open |= {client, server}
            for args in ((client, server), (server, client, True)):
                self.threads.append(threading.Thread(target=self.pump, args=args, daemon=True))
                self.threads[-1].start()

    def pump(self, source, sink, counted=False):
        buffer = memoryview(bytearray(1 << 20))
        try:
            while n := source.recv_into(buffer):
                if counted:
                    self.count(n)
                sink.sendall(buffer[:n])
        except OSError:
            pass
        self.close(source, sink)

    def count(self, n):
        with self.changed:
            self.bytes += n
            self.changed.notify_all()
            while self.limit is not None and self.bytes > self.limit:
                self.stalled = True
                self.changed.wait()
            self.stalled = False

    def close(self, *ends):
        with self.changed:
            for end in ends:
                if end in self.open:
                    self.open.remove(end)
                    end.shutdown(socket.SHUT_RDWR)
                    end.close()

    def wait_stalled(self, copy):
        """Until so much has come that nothing comes any more."""
        wait_for(lambda: self.stalled or copy.process.poll() is not None, "the link to stand still")
        assert self.stalled, copy.finish()

    def go_on(self, limit=None):
        with self.changed:
            self.limit = limit
            self.changed.notify_all()

    def cut(self):
        """Ends all connections."""
        with self.changed:
            ends = list(self.open)
            self.limit = None
            self.changed.notify_all()
        self.close(*ends)
        for thread in self.threads:
            thread.join()
        self.threads = []

    def renew(self, limit=None):
        """For the next copy."""
        self.cut()
        self.bytes, self.limit = 0, limit
