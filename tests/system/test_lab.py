# SPDX-License-Identifier: LGPL-2.1-or-later
"""The lab itself: what the other tests rely on really shows what they ask of it."""
import json

from vmlab import Disk, Guest, IMAGES, run
from vmlab.pki import distinguished_name


def find_record(image, number):
    """Offset of the record with this number in an image."""
    with open(image, "rb") as f:
        offset = 0
        while block := f.read(4096):
            if (int.from_bytes(block[:8], "little") == 0x766D666572727931
                    and int.from_bytes(block[8:16], "little") == number):
                return offset
            offset += 4096
    raise AssertionError(f"no record {number} in {image}")


def test_a_lost_a_torn_and_a_foreign_block_are_found(lab):
    guest = Guest(lab, "probe", [Disk("raw", 64), Disk("qcow2", 64)])
    qemu = guest.boot(lab.a)
    try:
        guest.wait_beats(n=100)
        assert not guest.complaints()
        assert all(r["ok"] for r in guest.stop_and_verify(qemu))
        beat, path = guest.beats()[-1], lab.a.path(f"{IMAGES}/probe-d0.raw")
        with open(path, "r+b") as image, open(guest.base(0), "rb") as base:
            for number, change in ((beat.acknowledged[0], "lost"),
                                   (beat.acknowledged[0] - 1, "torn")):
                image.seek(find_record(path, number))
                base.seek(image.tell())
                image.write(base.read(4096) if change == "lost" else b"x" * 4096)
                image.flush()
            image.seek(50 << 20)
            image.write(b"x")
        raw, qcow2 = guest.verify(qemu.disks, lab.a, beat)
        assert (raw["lost"], raw["torn"], raw["outside"], raw["ok"]) == (1, 1, 1, False)
        assert qcow2["ok"]
    finally:
        qemu.end()
        guest.remove_images()


def tls_objects(qemu, endpoint, peer):
    qemu.qmp("object-add", qom_type="tls-creds-x509", id=f"tls-{endpoint}", dir="/etc/pki/qemu",
             endpoint=endpoint, verify_peer=True)
    qemu.qmp("object-add", qom_type="authz-simple", id=f"authz-{endpoint}",
             identity=distinguished_name(peer.name))


def copy_paused_disks(lab, source, destination):
    """Copies every disk of a guest that stands still, through QEMU's own NBD server."""
    source.qmp("nbd-server-start", addr={"type": "inet", "data": {
        "host": lab.a.address, "port": "49216"}}, tls_creds="tls-server", tls_authz="authz-server")
    for i, (path, disk) in enumerate(destination.disks):
        source.qmp("block-export-add", type="nbd", id=f"e{i}", node_name=f"d{i}", name=f"d{i}")
        url = {"driver": "raw", "file": {
            "driver": "nbd", "export": f"d{i}", "tls-creds": "c", "tls-hostname": "hostA",
            "server": {"type": "inet", "host": lab.a.address, "port": "49216"}}}
        lab.b.run("qemu-img", "convert", "-n", "--object",
                  "tls-creds-x509,id=c,dir=/etc/pki/qemu,endpoint=client,verify-peer=on",
                  "-O", disk.format, "json:" + json.dumps(url), path)
    source.qmp("nbd-server-stop")


def test_a_guest_moves_by_hand_over_tls(lab):
    guest = Guest(lab, "probe", [Disk("raw", 64), Disk("qcow2", 64)])
    source = guest.boot(lab.a)
    destination = guest.expect(lab.b)
    try:
        tls_objects(source, "server", lab.b)
        tls_objects(source, "client", lab.b)
        tls_objects(destination, "server", lab.a)
        assert "object tls-client" in source.leftovers()
        source.qmp("stop")
        copy_paused_disks(lab, source, destination)
        destination.qmp("migrate-set-parameters", tls_creds="tls-server", tls_authz="authz-server")
        destination.qmp("migrate-incoming", uri=f"tcp:{lab.b.address}:49217")
        assert 49217 in lab.b.listening()
        source.qmp("migrate-set-parameters", tls_creds="tls-client", tls_hostname="hostB")
        source.qmp("migrate-set-capabilities",
                   capabilities=[{"capability": "events", "state": True}])
        source.qmp("migrate", uri=f"tcp:{lab.b.address}:49217")
        source.qmp.wait_event("MIGRATION", status="completed")
        destination.qmp("cont")
        guest.wait_beats(n=50)
        assert guest.beats()[-1].host == "hostB" and len(guest.downtime_ms()) == 1
        assert not guest.complaints()
        assert all(r["ok"] for r in guest.stop_and_verify(destination))
    finally:
        source.end()
        destination.end()
        guest.remove_images()


def test_each_kind_of_bad_certificate_is_made(lab):
    """certtool's word for what is wrong; that the others are good is shown above."""
    for variant, word in (("other-ca", "not trusted"), ("expired", "expired"),
                          ("not-yet-valid", "not yet"), ("revoked", "revoked")):
        lab.a.credentials(variant)
        directory = f"{lab.a.directory}/etc/pki/qemu"
        more = ["--load-crl", f"{lab.b.directory}/etc/pki/qemu/ca-crl.pem"] \
            if variant == "revoked" else []
        out = run("certtool", "--verify", "--load-ca-certificate", lab.pki.ca("ca"), *more,
                  "--infile", f"{directory}/server-cert.pem", check=False).stdout
        assert word in out.lower(), out
    for host in lab.hosts:
        host.credentials("good")


def test_link_can_be_cut_and_blackholed(lab):
    def reach():
        return lab.a.run("timeout", "1", "bash", "-c", "</dev/tcp/198.18.0.2/9", check=False)
    assert "refused" in reach().stderr
    lab.link.cut()
    assert "nreachable" in reach().stderr
    lab.link.heal()
    lab.link.drop("b")
    assert reach().returncode == 124
    lab.link.heal()
    lab.link.drop("a")
    assert reach().returncode == 124
    lab.link.heal()
    assert "refused" in reach().stderr


def test_disks_fill_up_and_devices_come_and_go(lab):
    before = lab.a.programs()
    device = lab.b.block_device("probe", 8)
    assert device in run("losetup", "-l").stdout
    run("losetup", "-d", device)
    lab.a.cap_images("16M")
    assert lab.a.image_files() == []
    lab.a.run("bash", "-c", f"! head -c 20M /dev/zero >{IMAGES}/x")
    lab.a.cap_images(None)
    assert lab.a.programs() == before
