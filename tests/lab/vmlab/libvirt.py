# SPDX-License-Identifier: LGPL-2.1-or-later
"""libvirtd on a host, for what vmferry is compared with."""
import os
import shutil

from .guest import accelerator
from .host import IMAGES
from .util import LabError, wait_for

LIBVIRTD_CONF = """listen_tls = 1
listen_tcp = 0
listen_addr = "{host.address}"
auth_unix_ro = "none"
auth_unix_rw = "none"
host_uuid = "{host.uuid}"
log_outputs = "2:file:/var/log/libvirt/libvirtd.log"
"""
QEMU_CONF = """user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
default_tls_x509_cert_dir = "/etc/pki/qemu"
default_tls_x509_verify = 1
migrate_tls_x509_verify = 1
"""
DOMAIN = """<domain type='{kind}'><name>{guest.name}</name>
<memory unit='MiB'>{guest.memory}</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type><kernel>/run/vmlab/guest/vmlinuz</kernel>
<initrd>/run/vmlab/guest/initrd.gz</initrd><cmdline>{guest_command_line}</cmdline></os>
<features><acpi/></features><on_poweroff>destroy</on_poweroff>
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator>{disks}
<controller type='usb' model='none'/><memballoon model='none'/>
<serial type='unix'><source mode='connect' path='/run/vmlab/serial.sock'/><target port='0'/></serial>
</devices></domain>"""
DISK = """<disk type='file' device='disk'>
<driver name='qemu' type='{disk.format}' cache='none' io='native' discard='unmap'/>
<source file='{path}'/><target dev='vd{letter}' bus='virtio'/></disk>"""


def domain_xml(guest):
    """The guest as Qemu starts it, in libvirt's words."""
    disks = "".join(DISK.format(disk=d, path=f"{IMAGES}/{guest.name}-d{i}.{d.format}",
                                letter="abcdefgh"[i]) for i, d in enumerate(guest.disks))
    return DOMAIN.format(kind="kvm" if accelerator() == "kvm" else "qemu", guest=guest,
                         guest_command_line=guest.command_line(), disks=disks)


class Libvirt:
    def __init__(self, host):
        self.host = host

    def _configure(self):
        etc, pki = f"{self.host.directory}/etc", self.host.lab.pki
        os.makedirs(f"{etc}/pki/CA", exist_ok=True)
        os.makedirs(f"{etc}/pki/libvirt/private", exist_ok=True)
        shutil.copy(pki.ca("ca"), f"{etc}/pki/CA/cacert.pem")
        for role in ("server", "client"):
            shutil.copy(pki.certificate(self.host, role, "good"),
                        f"{etc}/pki/libvirt/{role}cert.pem")
            shutil.copy(pki.key(self.host.name), f"{etc}/pki/libvirt/private/{role}key.pem")
        for name, text in (("libvirtd", LIBVIRTD_CONF.format(host=self.host)),
                           ("qemu", QEMU_CONF), ("libvirt", 'uri_default = "qemu:///system"\n')):
            with open(f"{etc}/libvirt/{name}.conf", "w") as f:
                f.write(text)

    def start(self):
        if not shutil.which("libvirtd"):
            raise LabError("libvirtd is missing: apt-get install libvirt-daemon-system")
        self._configure()
        self.host.run("libvirtd", "-d", "-l", "-p", "/run/libvirtd.pid")
        wait_for(lambda: self.virsh("-q", "uri", check=False).returncode == 0,
                 f"libvirtd on {self.host.name}")

    def virsh(self, *args, **more):
        return self.host.run("virsh", *args, **more)

    def start_guest(self, guest):
        """The same as Guest.boot(), as a domain."""
        guest.create_images(self.host)
        path = f"{self.host.lab.state}/{guest.name}.xml"
        with open(path, "w") as f:
            f.write(domain_xml(guest))
        before = len(guest.beats())
        self.virsh("define", path)
        self.virsh("start", guest.name)
        guest.wait_beats(before, timeout=120)

    def remove_guest(self, guest):
        self.virsh("destroy", guest.name, check=False)
        self.virsh("undefine", guest.name, check=False)
