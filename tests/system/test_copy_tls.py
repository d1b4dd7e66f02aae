# SPDX-License-Identifier: LGPL-2.1-or-later
"""`vmferry copy` and each mismatch of TLS, on either side, with each server: one line that says what
is wrong and what to do, and no byte of the disk in the target."""
import os
import shutil
import socket

import pytest

from copyservers import LOCAL, Emulator, Host, NbdServer, Nbdkit, QemuNbd
from copyworld import KIB, assert_absent, assert_same, copy, make_disk
from vmlab import run
from vmlab.pki import VARIANTS, Pki

ADDRESS = LOCAL.address


class Scene:
    """A disk, and directories of certificates of all kinds."""

    def __init__(self, directory):
        self.directory = directory
        self.disk = make_disk(f"{directory}/disk.raw", 300 * KIB)
        self.pki = Pki(f"{directory}/store")
        for variant in VARIANTS:
            self.pki.install(LOCAL, variant, self.dir(variant))
        other = Host("otherhost", ADDRESS)
        self.pki.install(LOCAL, "good", self.dir("revoking"))
        shutil.copy(self.pki.revocation_list(LOCAL), f"{self.dir('revoking')}/ca-crl.pem")
        # Its own certificate isn't on the list.
        for role in ("client", "server"):
            shutil.copy(self.pki.certificate(other, role, "good"),
                        f"{self.dir('revoking')}/{role}-cert.pem")
            shutil.copy(self.pki.key("otherhost"), f"{self.dir('revoking')}/{role}-key.pem")
        # It has a certificate of the CA, and trusts another one.
        self.pki.install(LOCAL, "good", self.dir("distrusting"))
        shutil.copy(self.pki.ca("other-ca"), f"{self.dir('distrusting')}/ca-cert.pem")
        os.mkdir(self.dir("empty"))
        self.pki.install(LOCAL, "good", self.dir("no-ca"))
        os.unlink(f"{self.dir('no-ca')}/ca-cert.pem")
        self.keys = {}
        for name, lines in {"good": "alice:" + "5a" * 32 + "\nbob:" + "a5" * 32,
                            "wrong": "alice:" + "77" * 32, "carol": "carol:" + "5a" * 32,
                            "short": "alice:5a5a5a5a", "text": "alice:what is this",
                            "open": "alice:" + "5a" * 32}.items():
            os.mkdir(f"{directory}/psk-{name}")
            self.keys[name] = f"{directory}/psk-{name}/keys.psk"
            with open(self.keys[name], "w") as f:
                f.write(lines + "\n")
            os.chmod(self.keys[name], 0o644 if name == "open" else 0o600)
        self.give_parameters()

    def give_parameters(self):
        """Without them each QEMU looks for a large prime, which may take seconds."""
        parameters = run("certtool", "--get-dh-params", "--sec-param", "medium").stdout
        for directory in map(self.dir, ("good", "other-ca", "revoking")):
            with open(f"{directory}/dh-params.pem", "w") as f:
                f.write(parameters)
        with open(f"{self.directory}/psk-good/dh-params.pem", "w") as f:
            f.write(parameters)

    def dir(self, variant):
        return f"{self.directory}/tls-{variant}"


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return Scene(str(tmp_path_factory.mktemp("tls")))


class QemuPsk(QemuNbd):
    def argv(self):
        argv = super().argv()
        at = argv.index("--object") + 1
        return (*argv[:at], f"tls-creds-psk,id=t,endpoint=server,dir={os.path.dirname(self.tls)}",
                *argv[at + 1:])


class NbdkitPsk(Nbdkit):
    def argv(self):
        argv = list(super().argv())
        argv[argv.index("--tls-verify-peer")] = f"--tls-psk={self.tls}"
        return [a for a in argv if not str(a).startswith("--tls-certificates")]


class QemuAuthz(QemuNbd):
    def __init__(self, *args, identity="O=vmferry lab,CN=somebody", **more):
        super().__init__(*args, **more)
        self.extra = ("--object", f"authz-simple,id=az,identity={identity.replace(',', ',,')}",
                      "--tls-authz", "az")


class QemuOld(QemuNbd):
    """Versions of TLS that are not to be used any more."""

    def argv(self):
        return [str(a) + ",priority=NORMAL:-VERS-ALL:+VERS-TLS1.1:+VERS-TLS1.0:%COMPAT"
                if str(a).startswith("tls-creds-x509") else a for a in super().argv()]


def qemu(scene, directory, tls, cls=QemuNbd, **more):
    return cls(directory, scene.disk, tls=tls, **more)


def nbdkit(scene, directory, tls, cls=Nbdkit):
    return cls(directory, "file", scene.disk, options=("-r",), name="disk", tls=tls)


def emulator(scene, directory, tls):
    return Emulator(directory, scene.disk, tls=tls)


def nbd_server(scene, directory, tls):
    return NbdServer(directory, scene.disk, tls=tls)


SERVERS = {"qemu-nbd": qemu, "nbdkit": nbdkit, "qemu": emulator, "nbd-server": nbd_server}
# Where the client judges; nbd-server looks for a large prime each time.
MOST = ("qemu-nbd", "nbdkit")
# Seconds; nobody waits so long.
LONG = ("--timeout=100",)


def uri(server, tls=None, host=ADDRESS, user="", psk=None, more="", scheme="nbds", export="disk"):
    how = f"tls-psk-file={psk}" if psk else f"tls-certificates={tls}" if tls else ""
    query = "&".join(filter(None, (how, more)))
    return f"{scheme}://{user}{host}:{server.port}/{export}" + (f"?{query}" if query else "")


def refused(tmp_path, where, *words, code=1, options=()):
    """In words, at once, and without a trace."""
    target = f"{tmp_path}/target.raw"
    result = copy(where, target, *LONG, *options, timeout=120).check(code, *words)
    assert_absent(target)
    assert len(result.message) < 600, result


def accepted(tmp_path, scene, where):
    target = f"{tmp_path}/target.raw"
    copy(where, target, *LONG, timeout=120).check(0)
    assert_same(scene.disk, target)
    os.unlink(target)


# ---- certificates ----

@pytest.mark.parametrize("kind", SERVERS)
def test_good(scene, tmp_path, kind):
    with SERVERS[kind](scene, tmp_path, scene.dir("good")) as server:
        accepted(tmp_path, scene, uri(server, scene.dir("good")))


# What only a look at the client's own files tells.
OWN = {
    "none": ("ca-cert.pem", "does not exist", "copy the certificate of your CA there"),
    "empty": ("ca-cert.pem", "does not exist", "copy the certificate of your CA there"),
    "no-ca": ("ca-cert.pem", "does not exist", "copy the certificate of your CA there"),
    "expired": ("client-cert.pem", "expired on", "CN=localhost"),
    "not-yet-valid": ("client-cert.pem", "not valid before", "CN=localhost"),
    "open-key": ("client-key.pem", "others may read it", "chmod 0600"),
    "distrusting": ("client-cert.pem", "CA (CN=ca)", "ca-cert.pem", "same CA"),
}


@pytest.mark.parametrize("variant", OWN)
def test_own_files(scene, tmp_path, variant):
    with socket.create_server((ADDRESS, 0)) as nobody:
        where = f"nbds://{ADDRESS}:{nobody.getsockname()[1]}/?tls-certificates={scene.dir(variant)}"
        refused(tmp_path, where, scene.dir(variant), *OWN[variant])


# The server's certificate is what the client doesn't like.  QEMU doesn't even start with these.
OF_SERVER = {
    "expired": ("its certificate", "CN=localhost", "expired on 2021-01-01"),
    "not-yet-valid": ("its certificate", "CN=localhost", "not valid before 2040-01-01"),
    "wrong-name": ("its certificate", "elsewhere.example", f'not for "{ADDRESS}"'),
}


@pytest.mark.parametrize("variant", OF_SERVER)
def test_bad_server(scene, tmp_path, variant):
    with nbdkit(scene, tmp_path, scene.dir(variant)) as server:
        refused(tmp_path, uri(server, scene.dir("good")), f"{ADDRESS}:{server.port}",
                *OF_SERVER[variant])


@pytest.mark.parametrize("kind", MOST)
def test_server_of_another_ca(scene, tmp_path, kind):
    with SERVERS[kind](scene, tmp_path, scene.dir("other-ca")) as server:
        refused(tmp_path, uri(server, scene.dir("good")), f"{ADDRESS}:{server.port}",
                "its certificate", "CA (CN=other-ca)", "ca-cert.pem", "same CA")


def test_revoked_server(scene, tmp_path):
    with nbdkit(scene, tmp_path, scene.dir("good")) as server:
        refused(tmp_path, uri(server, scene.dir("revoking")), "its certificate", "revoked",
                "ca-crl.pem")


@pytest.mark.parametrize("kind", SERVERS)
def test_client_of_another_ca(scene, tmp_path, kind):
    """Both trust the other's CA, as far as they have it: only the server refuses."""
    mixed = f"{tmp_path}/mixed"
    shutil.copytree(scene.dir("other-ca"), mixed)
    with open(f"{mixed}/ca-cert.pem", "a") as f:
        f.write(open(scene.pki.ca("ca")).read())
    with SERVERS[kind](scene, tmp_path, scene.dir("good")) as server:
        refused(tmp_path, uri(server, mixed), f"{ADDRESS}:{server.port}", "O=vmferry lab,CN=localhost")


@pytest.mark.parametrize("kind", SERVERS)
def test_no_client_certificate(scene, tmp_path, kind):
    with SERVERS[kind](scene, tmp_path, scene.dir("good")) as server:
        refused(tmp_path, uri(server, scene.dir("no-client")), f"{ADDRESS}:{server.port}",
                "client-cert.pem", "client-key.pem", scene.dir("no-client"))


def test_revoked_client(scene, tmp_path):
    with qemu(scene, tmp_path, scene.dir("revoking")) as server:
        refused(tmp_path, uri(server, scene.dir("good"), more="tls-hostname=otherhost"),
                "O=vmferry lab,CN=localhost")


def test_client_that_is_not_allowed(scene, tmp_path):
    with qemu(scene, tmp_path, scene.dir("good"), QemuAuthz) as server:
        refused(tmp_path, uri(server, scene.dir("good")), "right after the TLS handshake",
                "O=vmferry lab,CN=localhost", "not allowed there", "revoked", "CA")
    with qemu(scene, tmp_path, scene.dir("good"), QemuAuthz,
              identity="O=vmferry lab,CN=localhost") as server:
        accepted(tmp_path, scene, uri(server, scene.dir("good")))


def test_no_certificates_named(scene, tmp_path):
    with qemu(scene, tmp_path, scene.dir("good")) as server:
        refused(tmp_path, uri(server), "names no certificates", "/etc/pki/qemu",
                "tls-certificates=DIR")


def test_target_that_is_there(scene, tmp_path):
    """It stays as it was: nothing is opened before the server is trusted."""
    target = f"{tmp_path}/old.raw"
    with open(target, "wb") as f:
        f.write(b"old data" * 1000)
    before = os.stat(target)
    with qemu(scene, tmp_path, scene.dir("other-ca")) as server:
        copy(uri(server, scene.dir("good")), target).check(1, "its certificate")
    after = os.stat(target)
    assert open(target, "rb").read() == b"old data" * 1000
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


# ---- names ----

def test_name_of_the_server(scene, tmp_path):
    with qemu(scene, tmp_path, scene.dir("good")) as server:
        good = scene.dir("good")
        accepted(tmp_path, scene, uri(server, good, host="localhost"))
        accepted(tmp_path, scene, uri(server, good, more="tls-hostname=localhost"))
        refused(tmp_path, uri(server, good, more="tls-hostname=elsewhere.example"), "localhost",
                'not for "elsewhere.example"')
    with nbdkit(scene, tmp_path, scene.dir("wrong-name")) as server:
        accepted(tmp_path, scene, uri(server, good, more="tls-hostname=elsewhere.example"))


def test_tls_over_a_socket(scene, tmp_path):
    """There is no host whose name could be in the certificate."""
    path = f"{tmp_path}/tls.sock"
    with qemu(scene, tmp_path, scene.dir("good")) as server:
        argv = [str(a) for a in server.argv()]
        at = argv.index("-b")
        server.stop()
        server.argv = lambda: [*argv[:at], "-k", path, *argv[at + 4:]]
        server.tls, server.port, server.socket = None, None, path
        server.start()
        base = f"nbds+unix:///disk?socket={path}&tls-certificates={scene.dir('good')}"
        accepted(tmp_path, scene, base + "&tls-hostname=localhost")
        refused(tmp_path, base, "tls-hostname", code=2)
        refused(tmp_path, base + "&tls-hostname=elsewhere.example", path, "localhost",
                'not for "elsewhere.example"')


def test_ipv6(scene, tmp_path):
    with qemu(scene, tmp_path, scene.dir("good")) as server:
        server.stop()
        argv = [str(a) for a in server.argv()]
        argv[argv.index("-b") + 1] = "::1"
        server.argv = lambda: argv
        server.answers = lambda: f":{server.port:04X} 0000" in open("/proc/net/tcp6").read()
        server.start()
        accepted(tmp_path, scene,
                 uri(server, scene.dir("good"), host="[::1]", more="tls-hostname=localhost"))
        refused(tmp_path, uri(server, scene.dir("good"), host="[::1]"), f"[::1]:{server.port}",
                'not for "::1"')


# ---- TLS or not ----

@pytest.mark.parametrize("kind", SERVERS)
def test_server_demands_tls(scene, tmp_path, kind):
    with SERVERS[kind](scene, tmp_path, scene.dir("good")) as server:
        plain = uri(server, scheme="nbd")
        refused(tmp_path, plain, "clear text", "nbds://", "--allow-plaintext", code=2)
        refused(tmp_path, plain, "demands TLS", "nbds://", options=("--allow-plaintext",))


def test_server_without_tls(scene, tmp_path):
    for server in (QemuNbd(tmp_path, scene.disk), Nbdkit(tmp_path, "file", scene.disk),
                   NbdServer(tmp_path, scene.disk)):
        with server:
            where = f"nbds+unix:///disk?socket={server.socket}&tls-hostname=localhost" \
                    f"&tls-certificates={scene.dir('good')}"
            refused(tmp_path, where, server.socket, "offers no TLS", "nothing was sent in clear", "turn TLS on")


def test_old_versions(scene, tmp_path):
    with qemu(scene, tmp_path, scene.dir("good"), QemuOld) as server:
        refused(tmp_path, uri(server, scene.dir("good")), "no TLS version")


# ---- pre-shared keys ----

PSK_SERVERS = {"qemu-nbd": lambda w, d, key: qemu(w, d, key, QemuPsk),
               "nbdkit": lambda w, d, key: nbdkit(w, d, key, NbdkitPsk)}


@pytest.mark.parametrize("kind", PSK_SERVERS)
def test_psk(scene, tmp_path, kind):
    with PSK_SERVERS[kind](scene, tmp_path, scene.keys["good"]) as server:
        good = scene.keys["good"]
        accepted(tmp_path, scene, uri(server, user="alice@", psk=good))
        accepted(tmp_path, scene, uri(server, user="bob@", psk=good))
        refused(tmp_path, uri(server, user="alice@", psk=scene.keys["wrong"]),
                "TLS-PSK", '"alice"', scene.keys["wrong"], "log tells")
        refused(tmp_path, uri(server, user="carol@", psk=scene.keys["carol"]),
                "TLS-PSK", '"carol"', scene.keys["carol"], "log tells")
        refused(tmp_path, uri(server, scene.dir("good")), f"{ADDRESS}:{server.port}", "TLS-PSK")


@pytest.mark.parametrize("kind", MOST)
def test_psk_with_a_server_of_certificates(scene, tmp_path, kind):
    with SERVERS[kind](scene, tmp_path, scene.dir("good")) as server:
        refused(tmp_path, uri(server, user="alice@", psk=scene.keys["good"]),
                f"{ADDRESS}:{server.port}", "pre-shared key", "tls-certificates")


def test_psk_files(scene, tmp_path):
    for user, name, words in (("alice", "short", ("only 4 bytes", "psktool")),
                              ("alice", "text", ("hexadecimal", "psktool")),
                              ("alice", "open", ("others may read it", "chmod 0600")),
                              ("dave", "good", ('no key of user "dave"', "psktool"))):
        refused(tmp_path, f"nbds://{user}@{ADDRESS}:1/?tls-psk-file={scene.keys[name]}",
                scene.keys[name], *words)
    refused(tmp_path, f"nbds://alice@{ADDRESS}:1/?tls-psk-file={tmp_path}/absent", "absent",
            "does not exist", "psktool")
