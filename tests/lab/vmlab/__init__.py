# SPDX-License-Identifier: LGPL-2.1-or-later
"""Two simulated hosts on one machine, with real QEMUs, real certificates and a link between them.

    with Lab("name") as lab:                 # hostA and hostB, torn down at the end
        guest = Guest(lab, disks=[Disk("raw"), Disk("qcow2")])
        source = guest.boot(lab.a)           # a Qemu; its load runs
        ...
        print(guest.stop_and_verify(source))

Needs root, and what tests/run.sh installs."""
from .agent import Agent
from .guest import Disk, Guest, Qemu
from .host import IMAGES, Host
from .lab import Lab, REPOSITORY, build_directory
from .link import Link
from .util import LabError, run, wait_for

__all__ = ["Agent", "Disk", "Guest", "Host", "IMAGES", "Lab", "LabError", "Link", "Qemu",
           "REPOSITORY", "build_directory", "run", "wait_for"]
