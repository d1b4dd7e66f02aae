# SPDX-License-Identifier: LGPL-2.1-or-later
"""libvirtd on a host, for what vmferry is compared with."""
import os
import shutil

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
