# SPDX-License-Identifier: LGPL-2.1-or-later
"""A QMP client of a few lines: the lab's own view into a QEMU (on a monitor of its own) or an agent."""
import json
import socket
import time


class QmpError(RuntimeError):
    pass


class Qmp:
    def __init__(self, path, timeout=30, hello="qmp_capabilities"):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout)
        self.socket.connect(path)
        self.buffer, self.events, self.number = b"", [], 0
        self.greeting = self._receive()
        if hello:
            self(hello)

    def _receive(self):
        while b"\n" not in self.buffer:
            data = self.socket.recv(65536)
            if not data:
                raise QmpError("QEMU has closed its monitor")
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\n")
        return json.loads(line)

    def __call__(self, execute, **arguments):
        arguments = {k.replace("_", "-"): v for k, v in arguments.items()}
        self.number += 1  # an answer that came too late is no answer to the next command
        command = json.dumps({"execute": execute, "arguments": arguments, "id": self.number}) + "\n"
        self.socket.sendall(command.encode())
        while True:
            message = self._receive()
            if "event" in message:
                self.events.append(message)
            elif message.get("id") != self.number:
                continue
            elif "error" in message:
                raise QmpError(f"{execute}: {message['error']['desc']}")
            else:
                return message["return"]

    def wait_event(self, name, timeout=60, **data):
        """The first event of that name (past ones count too) whose data holds `data`; those
        before it are forgotten."""
        deadline = time.monotonic() + timeout
        while True:
            while self.events:
                event = self.events.pop(0)
                if event["event"] == name and data.items() <= event.get("data", {}).items():
                    return event
            if time.monotonic() > deadline:
                raise QmpError(f"no event {name} {data} within {timeout} s")
            self.socket.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                message = self._receive()
                if "event" in message:
                    self.events.append(message)
            except TimeoutError:
                pass
            finally:
                self.socket.settimeout(30)

    def forget_events(self):
        """Only what happens from now on counts."""
        self("query-status")
        self.events.clear()

    def close(self):
        self.socket.close()
