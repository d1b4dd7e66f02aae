#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The part of demo.sh that comes after installing and building."""
import os
import subprocess
import sys

REPOSITORY = os.path.realpath(f"{os.path.dirname(os.path.realpath(__file__))}/..")
sys.path.insert(0, f"{REPOSITORY}/tests/lab")
from vmlab import Disk, Guest, Lab, LabError, build_directory

DISKS = [Disk("raw", 512), Disk("qcow2", 512)]

GO_ON = """
The hosts stay up, the guest runs on hostB. To go on by hand:

  export VMLAB_STATE={lab.state}; PATH={build}/daemon:{repository}/tests/lab:$PATH
  lab status                        what runs where
  lab exec hostB                    a shell on a host; try: vmferry jobs
  tail -f {lab.state}/serial.log    the guest's heartbeat: time, host, writes acknowledged
  tail {lab.b.agent.log_file}       what an agent says

  lab expect hostA vm1 {disks}      new images and a QEMU that waits, then bring it back:
  lab exec hostB vmferry migrate vm1 hostA --qmp {socket} --dest-qmp {socket}

  lab down                          ends and removes all of it
"""


def say(text):
    print(f"* {text}", flush=True)


def prove(guest, destination):
    """Stops the guest and says what its disks hold; False if anything is missing."""
    fine = True
    for (path, disk), found in zip(destination.disks, guest.stop_and_verify(destination)):
        say(f"{path} ({disk.format}): {found['acknowledged']} writes acknowledged, "
            f"{found['lost']} lost, {found['torn']} torn, {found['outside']} other differences")
        fine = fine and found["ok"]
    return fine and not guest.complaints()


def how_to_go_on(lab, destination):
    print(GO_ON.format(
        lab=lab, repository=REPOSITORY, build=build_directory(), socket=destination.socket,
        disks=" ".join(f"{d.format}:{d.mb}" for d in DISKS)))


def cross(lab, keep):
    for host in lab.hosts:
        host.agent.configure()
        host.agent.start()
    say("booting a guest on hostA that writes and checks records on both its disks all the time")
    guest = Guest(lab, "vm1", DISKS, rate=250, ws_mb=128)
    source = guest.boot(lab.a)
    say("hostB gets empty images and a QEMU that waits for the guest")
    destination = guest.expect(lab.b)
    lab.link.rate("1gbit")
    command = ["vmferry", "migrate", "vm1", "hostB", "--qmp", source.socket,
               "--dest-qmp", destination.socket]
    say("on hostA: " + " ".join(command))
    status = subprocess.run(lab.a.entered([lab.program(command[0]), *command[1:]])).returncode
    if status:
        for host in lab.hosts:
            print(f"vmferryd on {host.name}:\n{host.agent.log()[-2000:]}", file=sys.stderr)
        raise LabError(f"vmferry migrate: exit status {status}")
    guest.wait_beats(n=100)
    beat = guest.beats()[-1]
    say(f"the guest runs on {beat.host}; by its own heartbeat it stood still for "
        f"{max(guest.downtime_ms()):.0f} ms")
    if keep:
        how_to_go_on(lab, destination)
        return True
    return prove(guest, destination)


def main():
    keep = "--keep" in sys.argv[1:]
    lab = Lab("demo")
    say("making two hosts, with links and certificates of their own")
    try:
        lab.up()
        fine = cross(lab, keep)
    except BaseException:
        lab.down()
        raise
    if not keep:
        lab.down()
    if not fine:
        sys.exit("demo: the guest lost data")
    if not keep:
        say("proven: not one acknowledged write is lost; nothing is left running")


try:
    main()
except LabError as error:
    sys.exit(f"demo: {error}")
