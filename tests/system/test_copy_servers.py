# SPDX-License-Identifier: LGPL-2.1-or-later
"""Servers that `vmferry copy` reads from: each kind, what they can do and can't, and any size."""
import os

import pytest

from copylink import Relay
from copyservers import Emulator, Hostile, Nbdkit, NbdServer, QemuNbd, StorageDaemon
from copyworld import (GIB, KIB, MIB, TIB, Copy, assert_absent, assert_same, assert_sparse, copy,
                       copy_measured, make_disk, part, run, signal)

SIZE = 8 * MIB
MEMORY_KIB = 64 * 1024


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return make_disk(str(tmp_path_factory.mktemp("source") / "source.raw"), SIZE)


def nbdkit_file(directory, image, fmt="raw", tls=None):
    assert fmt == "raw"
    return Nbdkit(directory, "file", image, tls=tls)


def nbd_server(directory, image, fmt="raw", tls=None):
    assert fmt == "raw"
    return NbdServer(directory, image, tls=tls)


KINDS = {"qemu-nbd": QemuNbd, "storage-daemon": StorageDaemon, "qemu": Emulator,
         "nbdkit": nbdkit_file, "nbd-server": nbd_server}


@pytest.mark.parametrize("tls", (False, True), ids=("clear", "tls"))
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind(here, source, credentials, kind, tls):
    target = f"{here}/target"
    with KINDS[kind](here, source, tls=credentials.good if tls else None) as server:
        for more in (("--verify",), ("--connections", "4")):
            result = copy(server.uri(), target, *more).check(0)
            assert_same(source, target)
            assert_sparse(source, target)
        if kind == "nbd-server":  # no structured replies: everything has to be read
            assert result.result["read_bytes"] == SIZE
        else:
            assert result.result["read_bytes"] < SIZE


@pytest.mark.parametrize("kind", ("qemu-nbd", "storage-daemon", "qemu"))
def test_images_of_other_formats(here, source, kind):
    image, target = f"{here}/image", f"{here}/target"
    run("qemu-img", "convert", "-O", "qcow2", source, image)
    with KINDS[kind](here, image, fmt="qcow2") as server:
        copy(server.uri(), target, "--verify").check(0)
    assert_same(source, target)
    assert_sparse(source, target)


SMALL_BLOCKS = ("blocksize-minimum=4096", "blocksize-preferred=4096", "blocksize-maximum=64K")
LARGE_BLOCKS = ("blocksize-minimum=64K", "blocksize-preferred=1M", "blocksize-maximum=32M")
VARIANTS = {
    "no structured replies": ((), (), ("--no-sr",)),
    "one thread": ((), (), ("-t", "1")),
    "no extents": (("noextents",), (), ()),
    "no zeroes": (("nozero",), (), ()),
    "small blocks": (("blocksize-policy",), (*SMALL_BLOCKS, "blocksize-error-policy=error"), ()),
    "large blocks": (("blocksize-policy",), (*LARGE_BLOCKS, "blocksize-error-policy=error"), ()),
    "small blocks, no structured replies": (
        ("blocksize-policy",), (*SMALL_BLOCKS, "blocksize-error-policy=error"), ("--no-sr",)),
    "delay": (("delay",), ("delay-read=5ms", "delay-extents=5ms"), ()),
    "multi-conn off": (("multi-conn",), ("multi-conn-mode=disable",), ()),
    "multi-conn emulated": (("multi-conn",), ("multi-conn-mode=emulate",), ()),
    "one client": (("limit",), ("limit=1",), ()),
    "copy on write": (("cow",), (), ()),
    "cache": (("cache",), ("cache-on-read=true",), ()),
    "cached extents": (("cacheextents",), (), ()),
    "read ahead": (("readahead",), (), ()),
    "one at a time": (("noparallel",), (), ()),
    "errors that are retried": (("retry-request", "error"),
                                ("error-pread-rate=10%", "retry-request-delay=1",
                                 "retry-request-retries=20"), ()),
    "a part of a file": (("offset",), ("offset=0", f"range={SIZE}"), ()),
    "rounded up": (("truncate",), ("round-up=4096",), ()),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_servers_can_and_cannot(here, source, variant):
    filters, args, options = VARIANTS[variant]
    target = f"{here}/target"
    for connections in (1, 4):
        with Nbdkit(here, "file", source, *args, filters=filters, options=options) as server:
            copy(server.uri(), target, "--connections", connections, "--verify").check(0)
        assert_same(source, target)
        assert_sparse(source, target)


def test_the_old_style_is_refused(here, source):
    """It can't say anything about itself, least of all TLS."""
    with Nbdkit(here, "file", source, options=("-o",)) as server:
        copy(server.uri(), f"{here}/target").check(1, "old")
    with Nbdkit(here, "file", source, options=("--mask-handshake=0",)) as server:
        copy(server.uri(), f"{here}/target").check(1, server.socket)
    assert_absent(f"{here}/target")


def test_a_broken_range_is_named(here):
    """Which bytes, of which export, and what the server said."""
    target = f"{here}/target"
    bad = 5 * MIB + 512 * KIB
    script = (f"get_size=echo {SIZE}", "can_extents=exit 3",
              f"pread=if [ $4 -le {bad} ] && [ $(($3 + $4)) -gt {bad} ]; then "
              "echo EIO the disk is broken >&2; exit 1; fi; head -c $3 /dev/zero | tr '\\0' x")
    for uri, name in (("disk%20one", "disk one"), ("", '""')):
        with Nbdkit(here, "eval", *script) as server:
            result = copy(server.uri(uri), target).check(1, name, "Input/output error")
        offset = int(result.message.partition("offset ")[2].split()[0].rstrip(":,;"))
        assert offset <= bad < offset + MIB, result
        assert not os.path.exists(target)
        for leftover in (part(target), f"{target}.vmferry-journal"):
            if os.path.exists(leftover):
                os.unlink(leftover)


def test_errors_of_status_requests(here, source):
    with Nbdkit(here, "file", source, "error-extents=EIO", "error-extents-rate=100%",
                filters=("error",)) as server:
        copy(server.uri(), f"{here}/target").check(1, "Input/output error")
    assert_absent(f"{here}/target")


def test_a_server_that_shuts_down(here, source):
    with Hostile(here, "shutdown") as server:
        result = copy(server.uri(), f"{here}/target", "--timeout", "1").check(1, "--resume")
        assert "Server is shutting down" in result.stderr and result.result["reconnects"] > 0
    assert not os.path.exists(f"{here}/target")


def test_an_export_that_is_not_there(here, source):
    for server in (QemuNbd(here, source), StorageDaemon(here, source), NbdServer(here, source)):
        with server:
            copy(server.uri("none"), f"{here}/target").check(1, '"none"')
    assert_absent(f"{here}/target")


# ---- sizes ----

def data_of(path):
    """(start, end) of what may not be zero."""
    fd, end, found = os.open(path, os.O_RDONLY), 0, []
    try:
        while True:
            start = os.lseek(fd, end, os.SEEK_DATA)
            end = os.lseek(fd, start, os.SEEK_HOLE)
            found.append((start, end))
    except OSError:
        return found
    finally:
        os.close(fd)


def assert_same_data(source, target):
    """As assert_same() for what is too large to be read."""
    assert os.path.getsize(source) == os.path.getsize(target)
    with open(source, "rb") as a, open(target, "rb") as b:
        for start, end in data_of(source) + data_of(target):
            a.seek(start)
            b.seek(start)
            assert a.read(end - start) == b.read(end - start), (start, end)


def make_sparse(path, size):
    """Data at both ends, in the middle, and where 32 bits end."""
    with open(path, "wb") as f:
        f.truncate(size)
        for at in (0, size - 100, size // 2, 4 * GIB - 50, 4 * GIB + MIB, 2 * GIB - 4096):
            if 0 <= at < size:
                f.seek(at)
                f.write(os.urandom(min(200 * KIB, size - at)))
    return path


@pytest.mark.parametrize("size", (5 * GIB, TIB, 16 * TIB - 4096))
@pytest.mark.parametrize("kind", ("qemu-nbd", "nbdkit"))
def test_large_and_sparse(here, credentials, size, kind):
    """Over TLS, too: what is asked and read is bounded by the data, not by the size."""
    source, target = make_sparse(f"{here}/source", size), f"{here}/target"
    with KINDS[kind](here, source, tls=credentials.good) as server:
        for more in ((), ("--connections", "4")):
            result = copy(server.uri(), target, *more, timeout=120).check(0)
            assert result.result["read_bytes"] <= 2 * MIB
            assert result.result["done_bytes"] == size
            assert_same_data(source, target)


def test_a_sparse_terabyte_is_verified(here):
    """And gone on with: neither reads holes."""
    source, target = make_sparse(f"{here}/source", TIB), f"{here}/target"
    with QemuNbd(here, source) as server:
        result = copy(server.uri(), target, "--verify", timeout=120).check(0)
        assert result.result["verified_bytes"] == TIB
        assert_same_data(source, target)
        copy(server.uri(), f"{here}/image", "--target-format", "qcow2", timeout=120).check(0)
    assert "Images are identical" in run("qemu-img", "compare", "-f", "raw", "-F", "qcow2",
                                         source, f"{here}/image").stdout


def test_sixteen_terabytes_to_nowhere(here):
    with Nbdkit(here, "null", f"size={16 * TIB}") as server:
        result = copy(server.uri(), "null:", timeout=120).check(0)
        assert result.result["zero_bytes"] == result.result["size"] == 16 * TIB


@pytest.mark.parametrize("size", ((1 << 63) - 1, (1 << 63) - 512))
def test_the_largest_exports(here, on_disk, size):
    """8 EiB: nobody has the time to ask for all of its extents."""
    with Nbdkit(here, "null", f"size={size}") as server:
        first = Copy(server.uri(), "null:")
        assert first.wait_progress(1, "size")["size"] == size
        first.signal(signal.SIGINT)
        first.finish().check(130)
    with Nbdkit(here, "null", f"size={size}") as server:
        if run("stat", "-f", "-c", "%T", on_disk).stdout.strip() == "ext2/ext3":
            copy(server.uri(), f"{on_disk}/target").check(1, f"{on_disk}/target", "size")
            assert_absent(f"{on_disk}/target")


def test_millions_of_extents_in_bounded_memory(here):
    """2 Mi of them, that read as zeroes, and 8 Ki with data between them."""
    extents, unit = 2 << 20, 4096
    kinds = ["0" if i % 256 == 0 else "hole,zero" if i % 2 else "zero" for i in range(256)]
    with open(f"{here}/extents", "w") as f:
        f.write("".join([f"{i * unit} {unit} {kinds[i % 256]}\n" for i in range(extents)]))
    with Nbdkit(here, "pattern", f"size={extents * unit}", f"extentlist={here}/extents",
                filters=("extentlist",)) as server, Relay(server) as link:
        result = copy_measured(link.uri(), "null:", timeout=120).check(0)
        assert result.result["read_bytes"] == extents // 256 * unit
        assert result.rss_kib < MEMORY_KIB, result.rss_kib
        # The map once, 8 bytes an extent, and no more.
        assert link.bytes < result.result["read_bytes"] + extents * 8 * 1.25 + 4 * MIB


def test_a_fragmented_disk(here):
    """Real ones: every other block of a file is a hole."""
    source, target = f"{here}/source", f"{here}/target"
    with open(source, "wb") as f:
        for i in range(0, 16384, 2):
            f.seek(i * 4096)
            f.write(i.to_bytes(8, "big") * 512)
        f.truncate(16384 * 4096)
    for server in (QemuNbd(here, source), nbdkit_file(here, source)):
        with server:
            result = copy_measured(server.uri(), target, "--verify").check(0)
        assert result.rss_kib < MEMORY_KIB, result.rss_kib
        assert_same(source, target)
        assert_sparse(source, target)


# ---- URIs ----

def spell(name):
    """Percent-encoded, each byte."""
    return "".join(f"%{b:02x}" for b in name.encode())


@pytest.mark.parametrize("name", ("", "plain", "mit Umlaut: ä/ö?ü#&=%", "日本語", "/", "a//b", "..", "a/../b", ".",
                                  "ß" * 2048, "x" * 4096))
def test_export_names(here, name):
    """nbdkit's info plugin serves the name itself."""
    with Nbdkit(here, "info", "mode=exportname") as server:
        copy(server.uri(spell(name)), f"{here}/target").check(0)
        assert open(f"{here}/target", encoding="utf-8").read() == name


def test_export_names_that_are_none(here):
    with Nbdkit(here, "info", "mode=exportname") as server:
        for name in ("x" * 4097, "%ff", "%00", "%"):
            copy(server.uri(name), f"{here}/target").check(2, "URI")
    assert_absent(f"{here}/target")


def ipv6():
    return os.path.exists("/proc/net/if_inet6") and "lo" in open("/proc/net/if_inet6").read()


def test_ipv6(here, source, credentials):
    if not ipv6():
        pytest.skip("there is no IPv6 on the loopback interface")
    server = Nbdkit(here, "file", source, tcp=True, options=(
        "--tls=require", "--tls-verify-peer", f"--tls-certificates={credentials.good}"))
    server.host = "::1"
    with server:
        uri = f"nbds://[::1]:{server.port}/?tls-certificates={credentials.good}"
        copy(uri, f"{here}/target").check(1, "::1")
        copy(f"{uri}&tls-hostname=localhost", f"{here}/target").check(0)
    assert_same(source, f"{here}/target")


def test_names_of_certificates(here, source, credentials):
    with QemuNbd(here, source, tls=credentials.good) as server:
        for name in ("localhost", "127.0.0.1"):
            copy(f"{server.uri()}&tls-hostname={name}", f"{here}/target").check(0)
        copy(f"{server.uri()}&tls-hostname=other.example", f"{here}/other").check(
            1, "other.example", "localhost")
        copy(server.uri().replace("127.0.0.1", "localhost"), f"{here}/target").check(0)
    assert_same(source, f"{here}/target")
    assert_absent(f"{here}/other")


def test_certificates_over_a_unix_socket(here, source, credentials):
    tls = credentials.good
    for server in (
            Nbdkit(here, "file", source, options=("--tls=require", "--tls-verify-peer",
                                                  f"--tls-certificates={tls}")),
            QemuNbd(here, source, name="", extra=("--tls-creds", "t", "--object",
                    f"tls-creds-x509,id=t,endpoint=server,dir={tls},verify-peer=yes"))):
        with server:
            uri = f"nbds+unix:///?socket={server.socket}&tls-certificates={tls}"
            copy(f"{uri}&tls-hostname=localhost", f"{here}/target").check(0)
            assert_same(source, f"{here}/target")
            copy(uri, f"{here}/target").check(2, "tls-hostname")
            copy(server.uri(), f"{here}/other").check(1, "TLS")


def test_pre_shared_keys(here, source, credentials):
    keys = credentials.psk
    other = f"{here}/wrong.psk"
    with open(other, "w") as f:
        f.write("alice:" + "0" * 64 + "\n")
    os.chmod(other, 0o600)
    directory = os.path.dirname(keys)
    for server in (
            Nbdkit(here, "file", source, options=("--tls=require", f"--tls-psk={keys}")),
            QemuNbd(here, source, name="", extra=(
                "--tls-creds", "t", "--object", f"tls-creds-psk,id=t,endpoint=server,dir={directory}"))):
        with server:
            place = f"/?socket={server.socket}&tls-psk-file="
            for more in ((), ("--connections", "4")):
                copy(f"nbds+unix://alice@{place}{keys}", f"{here}/target", *more).check(0)
                assert_same(source, f"{here}/target")
            copy(f"nbds+unix://{place}{keys}", f"{here}/target", env={"LOGNAME": "alice"}).check(0)
            copy(f"nbds+unix://bob@{place}{keys}", f"{here}/other").check(1, "bob", keys)
            copy(f"nbds+unix://alice@{place}{other}", f"{here}/other").check(1, "TLS")
    assert_absent(f"{here}/other")
