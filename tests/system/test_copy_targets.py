# SPDX-License-Identifier: LGPL-2.1-or-later
"""Files that `vmferry copy` writes: afterwards they are exactly the export, or as they were."""
import itertools
import os
import random
import socket
import stat

import pytest

from copylink import Relay
from copyservers import Nbdkit, QemuNbd
from copyworld import (KIB, MIB, Copy, allocated, assert_absent, assert_alone, assert_same,
                       assert_same_image, assert_sparse, copy, journal, make_disk, mounted, part,
                       run)

FORMATS = ("qcow2", "vmdk", "vdi", "vhdx", "vpc", "qed")
NAMES = ("json:{\"driver\":\"null-co\"}", "nbd:localhost:10809", "a,b=c,,d.raw", "with space",
         "100%25.raw", "-o", "file:x", "fat:rw:x", "\"quoted\"\\",
         "ünïcödé", "n" * 230)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Served by nbdkit, which exports files of any size."""
    path = make_disk(str(tmp_path_factory.mktemp("source") / "source.raw"), 6 * MIB + 12345)
    return path


@pytest.fixture
def served(here, source):
    with Nbdkit(here, "file", source) as server:
        yield server


def old_file(path, size):
    with open(path, "wb") as f:
        f.write(random.Random(size).randbytes(size))


@pytest.mark.parametrize("before", (None, 0, 1, 4096, MIB + 1, 6 * MIB + 12345, 9 * MIB))
def test_a_file_is_exactly_the_export(here, source, served, before):
    target = f"{here}/target"
    if before is not None:
        old_file(target, before)
    result = copy(served.uri(), target).check(0)
    assert_same(source, target)
    assert_sparse(source, target)
    assert_alone(target)
    assert result.result["state"] == "done" and result.result["size"] == 6 * MIB + 12345
    assert result.result["read_bytes"] + result.result["zero_bytes"] == 6 * MIB + 12345
    assert not os.listxattr(target)


@pytest.mark.parametrize("size", (0, 1, 511, 513, 4097, 512300, MIB - 1))
def test_odd_sizes(here, size):
    source, target = make_disk(f"{here}/source", size, density=1), f"{here}/target"
    with Nbdkit(here, "file", source) as server:
        for before in (None, 3 * MIB):
            if before:
                old_file(target, before)
            for more in ((), ("--verify",), ("--connections", "4")):
                copy(server.uri(), target, *more).check(0)
                assert_same(source, target)
                assert_alone(target)
        copy(server.uri(), f"{here}/image", "--target-format", "qcow2").check(0)
        assert_same_image(source, f"{here}/image", "qcow2", f"{here}/scratch")


def test_zeroes_that_came_as_data_become_holes(here):
    """The server tells no extents, so that everything is read."""
    source, target = f"{here}/source", f"{here}/target"
    with open(source, "wb") as f:
        f.write(bytes(MIB) + b"data" + bytes(5 * MIB) + b"end")
    old_file(target, 6 * MIB)
    with Nbdkit(here, "file", source, filters=("noextents",)) as server:
        result = copy(server.uri(), target).check(0)
        assert result.result["read_bytes"] == os.path.getsize(source)
        assert_same(source, target)
        assert allocated(target) <= 64 * KIB
        copy(server.uri(), f"{here}/image", "--target-format", "qcow2").check(0)
        assert allocated(f"{here}/image") <= MIB


def test_all_zero_and_all_data(here):
    for size, density in ((8 * MIB, 0), (2 * MIB, 1)):
        source, target = make_disk(f"{here}/source", size, density=density), f"{here}/target"
        with Nbdkit(here, "file", source) as server:
            copy(server.uri(), target).check(0)
        assert_same(source, target)
        assert_sparse(source, target)


@pytest.mark.parametrize("fmt", FORMATS)
def test_formats(here, source, served, fmt):
    target = f"{here}/target"
    old_file(target, 3 * MIB)
    copy(served.uri(), target, "--target-format", fmt, "--verify").check(0)
    assert_same_image(source, target, fmt, f"{here}/scratch")
    assert_alone(target)
    info = run("qemu-img", "info", "-f", fmt, target).stdout
    assert f"file format: {fmt}" in info


def test_formats_that_are_none(here, served):
    for fmt in ("luks", "json:", "raw,file.filename=/etc/passwd", "qcow2 ", "host_device", ""):
        copy(served.uri(), f"{here}/target", "--target-format", fmt).check(2, "format")
    for target in ("null:", "nbd+unix:///?socket=/x", "nbds://localhost/"):
        copy(served.uri(), target, "--target-format", "qcow2").check(2, "format")
    assert_absent(f"{here}/target")


@pytest.mark.parametrize("name", NAMES)
def test_names_are_names(here, source, served, name):
    """Relative, as they are typed: no tool may see a protocol in them."""
    there = ("env", "-C", here)
    typed = f"./{name}" if name.startswith("-") else name
    result = copy(served.uri(), typed, prefix=there).check(0)
    assert result.result["target"] == typed
    assert_same(source, f"{here}/{name}")
    copy(served.uri(), typed, "--target-format", "qcow2", prefix=there).check(0)
    assert_same_image(source, f"/proc/self/cwd/{os.path.relpath(here)}/{name}", "qcow2",
                      f"{here}/scratch")
    assert_alone(f"{here}/{name}")


@pytest.mark.parametrize("name", ("new\nline", "x\x1b[2J", "tab\t", "\x7f"))
def test_names_with_control_characters_are_refused(here, served, name):
    """And escaped: Result looks at each character that was printed."""
    copy(served.uri(), f"{here}/{name}").check(2, "control character")
    assert name not in os.listdir(here)


def test_mode_and_owner_of_the_replaced_file_are_kept(here, source, served):
    target = f"{here}/target"
    for mode, owner in ((0o600, 0), (0o4755, 0), (0o640, 65534)):
        old_file(target, 5)
        os.chown(target, owner, owner)
        os.chmod(target, mode)
        for fmt in ("raw", "qcow2"):
            copy(served.uri(), target, "--target-format", fmt).check(0)
            info = os.stat(target)
            assert stat.S_IMODE(info.st_mode) == mode and info.st_uid == info.st_gid == owner


def test_mode_of_a_new_file_follows_the_umask(here, served):
    for umask in (0o022, 0o077):
        target = f"{here}/target{umask}"
        copy(served.uri(), target, prefix=("sh", "-c", f'umask {umask:o}; exec "$@"', "-")).check(0)
        assert stat.S_IMODE(os.stat(target).st_mode) == 0o666 & ~umask


def test_no_link_at_the_end_is_followed(here, served):
    victim = f"{here}/victim"
    old_file(victim, 100)
    before = open(victim, "rb").read()
    for name, message in (("target", "symbolic link"), ("target.vmferry-part", "symbolic link"),
                          ("target.vmferry-journal", "journal")):
        for aim in (victim, f"{here}/nothing"):
            os.symlink(aim, f"{here}/{name}")
            copy(served.uri(), f"{here}/target").check(1, message)
            copy(served.uri(), f"{here}/target", "--resume").check(1, message)
            assert os.path.islink(f"{here}/{name}")
            os.unlink(f"{here}/{name}")
    assert open(victim, "rb").read() == before
    assert not os.path.exists(f"{here}/nothing")
    assert_absent(f"{here}/target")


def test_links_on_the_way_only_if_this_user_or_root_made_them(here, source, served):
    os.mkdir(f"{here}/real")
    os.symlink("real", f"{here}/link")
    copy(served.uri(), f"{here}/link/target").check(0)
    assert_same(source, f"{here}/real/target")
    os.lchown(f"{here}/link", 65534, 65534)
    copy(served.uri(), f"{here}/link/other").check(1, "link")
    assert os.listdir(f"{here}/real") == ["target"]
    os.symlink("loop", f"{here}/loop")
    copy(served.uri(), f"{here}/loop/x").check(1, "link")


def test_what_is_no_file_is_refused(here, served):
    os.mkdir(f"{here}/dir")
    os.mkfifo(f"{here}/pipe")
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(f"{here}/socket")
        for name, what in (("dir", "a directory"), ("pipe", "a pipe"), ("socket", "a socket")):
            copy(served.uri(), f"{here}/{name}").check(1, name, what)
            assert_alone(f"{here}/{name}")
    copy(served.uri(), "/dev/null").check(1, "/dev/null", "character device")
    copy(served.uri(), f"{here}/dir/").check(2, "is a directory")
    copy(served.uri(), f"{here}/none/target").check(1, "none", "No such file")
    copy(served.uri(), f"{here}/" + "n" * 250).check(1, "name")
    copy(served.uri(), "").check(2, "TARGET is empty")


def test_a_read_only_file_system(here, served):
    with mounted(f"{here}/ro", "ro"):
        copy(served.uri(), f"{here}/ro/target").check(1, "read-only", f"{here}/ro/target")
        copy(served.uri(), f"{here}/ro/target", "--target-format", "qcow2").check(1, "read-only")


def test_a_failed_copy_leaves_no_whole_file(here, source):
    """Reads fail from some offset on; what had the name before stays as it is."""
    target = f"{here}/target"
    failing = ("eval", f"get_size=echo {8 * MIB}",
               f"pread=if [ $4 -ge {4 * MIB} ]; then echo EIO broken >&2; exit 1; fi; "
               "head -c $3 /dev/urandom")
    for fmt, before in itertools.product(("raw", "qcow2"), (None, 1000)):
        if before:
            old_file(target, before)
        with Nbdkit(here, *failing) as server:
            result = copy(server.uri(), target, "--target-format", fmt).check(1, "offset")
        if before:
            assert os.path.getsize(target) == before
            os.unlink(target)
        else:
            assert not os.path.lexists(target)
        assert ("--resume" in result.message) == os.path.exists(journal(target)) \
            == os.path.exists(part(target))
    with Nbdkit(here, "file", source) as server:
        copy(server.uri(), target).check(0)
    assert_same(source, target)
    assert_alone(target)


def test_part_files_of_others_stay(here, served):
    target = f"{here}/target"
    old_file(part(target), 10)
    copy(served.uri(), target).check(1, "is in the way", part(target))
    assert os.path.getsize(part(target)) == 10 and not os.path.exists(target)


def test_one_copy_at_a_time(here):
    source, target = make_disk(f"{here}/source", 6 * MIB), f"{here}/target"
    with QemuNbd(here, source) as server, Relay(server) as link:
        for fmt in ("raw", "qcow2"):
            link.renew(MIB)
            first = Copy(link.uri(), target, "--target-format", fmt)
            link.wait_stalled(first)
            copy(server.uri(), target).check(1, "another vmferry copy")
            copy(server.uri(), target, "--resume").check(1, "another vmferry copy")
            assert os.path.exists(part(target)) and os.path.exists(journal(target))
            first.kill()
        copy(server.uri(), target).check(0)
    assert_same(source, target)


def test_an_image_that_is_in_use_is_not_replaced(here, served):
    target = f"{here}/target"
    old_file(target, MIB)
    with QemuNbd(here, target, writable=True):
        copy(served.uri(), target).check(1, target)
    assert os.path.getsize(target) == MIB
    assert_alone(target)


def test_the_page_cache_is_not_flooded(on_disk):
    if run("stat", "-f", "-c", "%T", on_disk).stdout.strip() in ("tmpfs", "ramfs"):
        pytest.skip(f"{on_disk} is in memory itself")
    target = f"{on_disk}/target"
    with Nbdkit(on_disk, "pattern", f"size={128 * MIB}") as server:
        for more in ((), ("--verify",), ("--target-format", "qcow2"),
                     ("--target-format", "qcow2", "--verify")):
            copy(server.uri(), target, *more).check(0)
            resident = int(run("fincore", "-b", "-n", "-o", "RES", target).stdout)
            assert resident <= 16 * MIB, (more, resident)
