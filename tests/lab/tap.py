#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""tap.py HOST SOCKET: collects what the guests of one host print on their serial ports.

Appends `<CLOCK_MONOTONIC ns> <host> <text>` to stdout, a log that both hosts share. They share
one kernel and so one clock: the silence between two hosts' lines is the guest's downtime."""
import os, selectors, socket, sys, time


def main(host, path):
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen(16)
    selector = selectors.DefaultSelector()
    selector.register(server, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            stamp = b"%d %s " % (time.monotonic_ns(), host.encode())
            if key.fileobj is server:
                connection, _ = server.accept()
                selector.register(connection, selectors.EVENT_READ, [b""])
                continue
            try:
                data = key.fileobj.recv(65536)
            except OSError:
                data = b""
            *lines, key.data[0] = (key.data[0] + data).split(b"\n")
            os.write(1, b"".join(stamp + line.rstrip(b"\r") + b"\n" for line in lines))
            if not data:
                selector.unregister(key.fileobj)
                key.fileobj.close()


main(*sys.argv[1:])
