#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""fake_agent.py MODE: stands where hostB's vmferryd should be, with hostB's good certificates.

version   has no version of the protocol in common with anybody
silent    accepts connections and says nothing
garbage   answers with what isn't JSON
flood     answers with a line that never ends
greedy    takes part until the first copy, then asks QEMU for 32 MiB and reads nothing
text      refuses with a text that would repaint a terminal"""
import json
import socket
import ssl
import struct
import sys
import threading
import time

HERE, PORT, PKI = "198.18.0.2", 10810, "/etc/pki/qemu"


def context(purpose, role):
    tls = ssl.create_default_context(purpose, cafile=f"{PKI}/ca-cert.pem")
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_cert_chain(f"{PKI}/{role}-cert.pem", f"{PKI}/{role}-key.pem")
    return tls


def nbd_greedy(port, export):
    """A client that is let in, asks for as much as it may and never reads a byte of it."""
    sock = socket.create_connection(("198.18.0.1", port))
    file = sock.makefile("rb")
    file.read(18)                                            # NBDMAGIC, IHAVEOPT, flags
    sock.sendall(struct.pack(">I", 3))                       # fixed newstyle, no zeroes
    sock.sendall(b"IHAVEOPT" + struct.pack(">II", 5, 0))     # STARTTLS
    assert struct.unpack(">QIII", file.read(20))[2] == 1, "STARTTLS was refused"
    sock = context(ssl.Purpose.SERVER_AUTH, "client").wrap_socket(sock, server_hostname="hostA")
    name = export.encode()
    go = struct.pack(">I", len(name)) + name + struct.pack(">H", 0)
    sock.sendall(b"IHAVEOPT" + struct.pack(">II", 7, len(go)) + go)
    while True:                                              # replies to GO until the ACK
        header = b""
        while len(header) < 20:
            header += sock.recv(20 - len(header))
        _, _, kind, length = struct.unpack(">QIII", header)
        while length:
            length -= len(sock.recv(length))
        if kind == 1:
            break
        assert kind == 3, f"GO was refused ({kind:#x})"
    for cookie in range(4):
        sock.sendall(struct.pack(">IHHQQI", 0x25609513, 0, 0, cookie, cookie << 25, 32 << 20))
    print("greedy: asked", flush=True)
    time.sleep(1000)


class Session:
    def __init__(self, mode, sock):
        self.mode, self.sock, self.file = mode, sock, sock.makefile("rb")

    def send(self, message):
        self.sock.sendall(json.dumps(message).encode() + b"\n")

    def serve(self):
        if self.mode == "silent":
            time.sleep(1000)
        if self.mode == "garbage":
            self.sock.sendall(b"SSH-2.0-OpenSSH_9.2\r\n" * 10)
            return
        if self.mode == "flood":
            while True:
                self.sock.sendall(b'{"vmferry": {"host": "' + b"x" * 65536)
        version = 9999 if self.mode == "version" else 1
        self.send({"vmferry": {"protocol": version, "version": "9.9", "host": "hostB"}})
        for line in self.file:
            self.answer(json.loads(line))

    def answer(self, command):
        name, arguments, reply = command["execute"], command.get("arguments", {}), {}
        if self.mode == "version":
            return self.refuse(command, "Version", "this agent speaks versions 9000 to 9999")
        if name == "hello":
            reply = {"protocol": 1, "server-dn": "O=vmferry lab,CN=hostB",
                     "client-dn": "O=vmferry lab,CN=hostB", "address": "198.18.0.1"}
        elif name == "prepare" and self.mode == "text":
            return self.refuse(command, "Failed", "no \x1b[2J\x1b]0;title\x07 room\nat all")
        elif name == "prepare":
            reply = {"qemu": "absent", "messages": []}
        elif name == "copy":
            for disk in arguments["disks"]:
                threading.Thread(target=nbd_greedy, daemon=True,
                                 args=(arguments["port"], disk["export"])).start()
            return None                                      # the copy never ends
        return self.send({"return": reply, "id": command["id"]})

    def refuse(self, command, kind, text):
        self.send({"error": {"class": kind, "desc": text}, "id": command["id"]})


def serve(mode, connection):
    try:
        tls = context(ssl.Purpose.CLIENT_AUTH, "server")
        Session(mode, tls.wrap_socket(connection, server_side=True)).serve()
    except (OSError, ValueError) as error:
        print(f"fake agent: {error}", flush=True)


def main(mode):
    server = socket.create_server((HERE, PORT))
    while True:
        threading.Thread(target=serve, args=(mode, server.accept()[0]), daemon=True).start()


main(sys.argv[1])
