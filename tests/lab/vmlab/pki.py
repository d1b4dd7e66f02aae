# SPDX-License-Identifier: LGPL-2.1-or-later
"""Certificates in QEMU's directory layout, the good ones and each kind of bad ones."""
import os
import shutil

from .util import run

VARIANTS = ("good", "none", "other-ca", "expired", "not-yet-valid", "wrong-name", "revoked",
            "unlisted", "no-client", "open-key")

VALID = "expiration_days = 30\n"
VALIDITY = {
    "expired": 'activation_date = "2020-01-01 00:00:00 UTC"\n'
               'expiration_date = "2021-01-01 00:00:00 UTC"\n',
    "not-yet-valid": 'activation_date = "2040-01-01 00:00:00 UTC"\n'
                     'expiration_date = "2041-01-01 00:00:00 UTC"\n',
}


def distinguished_name(host_name):
    """As QEMU spells it for tls-authz: in the certificate's encoding order."""
    return f"O=vmferry lab,CN={host_name}"


class Pki:
    """A store of keys and certificates; each is made when it is first asked for.
    Keys are RSA: libvirt 9.0 refuses others on its own socket."""

    def __init__(self, directory):
        self.directory = directory
        os.makedirs(directory, exist_ok=True)

    def _file(self, name, *command, template=None):
        path = f"{self.directory}/{name}"
        if not os.path.exists(path):
            if template is not None:
                with open(path + ".template", "w") as f:
                    f.write(template)
                command += ("--template", path + ".template")
            run("certtool", *command, "--outfile", path)
        return path

    def key(self, name):
        return self._file(f"{name}-key.pem", "--generate-privkey", "--key-type=rsa", "--bits=2048")

    def ca(self, name):
        return self._file(f"{name}-cert.pem", "--generate-self-signed",
                          "--load-privkey", self.key(name),
                          template=f'cn = "{name}"\nca\ncert_signing_key\ncrl_signing_key\n{VALID}')

    def certificate(self, host, role, variant):
        ca = "other-ca" if variant == "other-ca" else "ca"
        name = "elsewhere" if variant == "unlisted" else host.name
        san = "elsewhere.example" if variant == "wrong-name" else host.name
        template = (f'organization = "vmferry lab"\ncn = "{name}"\ndns_name = "{san}"\n'
                    f"tls_www_{role}\nsigning_key\nencryption_key\n" + VALIDITY.get(variant, VALID))
        if variant != "wrong-name":
            template += f'ip_address = "{host.address}"\n'
        return self._file(f"{host.name}-{role}-{variant}.pem", "--generate-certificate",
                          "--load-privkey", self.key(host.name), "--load-ca-certificate",
                          self.ca(ca), "--load-ca-privkey", self.key(ca), template=template)

    def revocation_list(self, host):
        """A list that revokes both certificates of `host`."""
        both = f"{self.directory}/{host.name}-revoked.pem"
        with open(both, "w") as f:
            for role in ("server", "client"):
                f.write(open(self.certificate(host, role, "good")).read())
        return self._file(f"{host.name}-crl.pem", "--generate-crl", "--load-certificate", both,
                          "--load-ca-certificate", self.ca("ca"), "--load-ca-privkey",
                          self.key("ca"), template="crl_next_update = 30\ncrl_number = 1\n")

    def install(self, host, variant, directory):
        """Makes `directory` what /etc/pki/qemu of a host with such certificates looks like."""
        assert variant in VARIANTS, variant
        shutil.rmtree(directory, ignore_errors=True)
        if variant == "none":
            return
        os.makedirs(directory)
        kind = variant if variant in VALIDITY or variant in (
            "other-ca", "wrong-name", "unlisted") else "good"
        shutil.copy(self.ca("other-ca" if variant == "other-ca" else "ca"),
                    f"{directory}/ca-cert.pem")
        for role in ("server",) if variant == "no-client" else ("server", "client"):
            shutil.copy(self.certificate(host, role, kind), f"{directory}/{role}-cert.pem")
            key = f"{directory}/{role}-key.pem"
            shutil.copy(self.key(host.name), key)
            os.chmod(key, 0o644 if variant == "open-key" else 0o600)
