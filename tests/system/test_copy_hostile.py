# SPDX-License-Identifier: LGPL-2.1-or-later
"""`vmferry copy` against a server that breaks the protocol, in each way that it knows: it is given
up in words, within the time, in little memory, and never believed."""
import concurrent.futures
import os
import re

import pytest

from copyservers import Credentials, Hostile
from copyworld import (KIB, MIB, VMFERRY, assert_absent, assert_same, copy, copy_measured, journal,
                       part)

IN_TLS = ("no-tls", "inject", "hang-up-in-tls", "hang-up-at-tls", "silent-in-tls", "tls-garbage")
HARMLESS = ("honest", "no-go", "strange-flags", "strange-reply-flags", "last-extent",
            "strange-state", "crumbs", "tiny-status")
SANITIZED = b"__asan_init" in open(VMFERRY, "rb").read()
# With --timeout=1; on a busy machine that may be over while something else is waited for.
LATE = re.compile("timed out|no progress in 1.0 s|nothing could be copied for 1.0 s")

# What the one line must say beside the name of the server.
HANDSHAKE = {
    "not-nbd": ("not an NBD server", '"NBDMAGIDIHAVEOPT'),
    "oldstyle": ("old version of NBD",),
    "no-fixed": ("old version of NBD",),
    "no-tls": ("offers no TLS", r"NBD_REP_ERR_POLICY: no \x1b[31mTLS\x0a", "nothing was sent"),
    "inject": ("in clear", "TLS"),
    "hang-up-in-tls": ("right after the TLS handshake", "its log tells"),
    "hang-up-at-tls": ("closed the connection in the TLS handshake",),
    "silent-in-tls": LATE,
    "tls-garbage": ("TLS handshake failed",),
    "bad-option-magic": ("garbage", "0x0003e889045565aa", "NBD_OPT_"),
    "wrong-option": ("answered option", "was asked", "NBD_OPT_"),
    "huge-option-reply": ("NBD_OPT_", "268435456 bytes"),
    "long-ack": ("NBD_OPT_", "4 bytes", "may have 0"),
    "unknown-reply": ("reply of type 99 to NBD_OPT_",),
    "endless-info": ("without end",),
    "no-export": ('refused export ""', "NBD_REP_ERR_UNKNOWN", r"no such \"export\""),
    "long-option-text": ("NBD_OPT_GO", "60000 bytes", "may have 16384"),
    "ugly-option-text": ("NBD_REP_ERR_POLICY", r"\x0d\x0a\x1b]0;owned\x07", r"\x9b1m\xff\xfe"),
    "going-down": ("NBD_REP_ERR_SHUTDOWN",),
    "huge-size": ("impossible export", "18446744073709547520", "2^63-1"),
    "no-flags": ("impossible export", "flag 0x1"),
    "two-sizes": ("twice", "1052672", "1048576"),
    "bad-block-size": ("block sizes that the protocol does not allow",),
    "foreign-context": ("context that was not asked for",),
    "short-context": ("malformed metadata context",),
    "endless-contexts": ("context that was not asked for",),
    "no-info": ("did not tell the size",),
    "short-info": ("malformed size",),
    "silent-greeting": LATE,
    "silent-option": LATE,
    "drip-option": LATE,
    "early-reply": ("answered a request that was not made",),
}
READ = {
    "wrong-cookie": ("answered a request that was not made (cookie 0x",),
    "bad-magic": ("garbage (magic number 0xdeadbeef)",),
    "extended": ("garbage (magic number 0x6e8a278c)",),
    "echo": ("garbage (magic number 0x25609513)",),
    "close": LATE,
    "bye": LATE,
    "cut": LATE,
    "close-in-data": LATE,
    "shutdown": LATE,
    "silent": LATE,
    "stall": LATE,
    "drip-data": LATE,
    "long-chunk": ("chunk of type 1 and",),
    "foreign-chunk": ("bytes at offset",),
    "uncovered": ("success without sending all the data",),
    "early-done": ("success without sending all the data",),
    "overlap": ("twice",),
    "endless-chunks": ("more chunks than make sense",),
    "simple": ("simple reply where chunks were agreed on",),
    "mixed": ("mixed a simple reply with chunks",),
    "unknown-chunk": ("chunk of type 99",),
    "unknown-error": ("(4242)", '"strange"'),
    "eio": ("Input/output error (5) at offset", r"bad\x1b sector"),
    "simple-error": ("simple reply where chunks were agreed on",),
    "error-and-data": ("Input/output error (5)",),
    "ugly-error-text": (r"\x1b]0;owned\x07", r"\xe2\x80\xaetxet"),
    "bad-error-offset": ("error for offset",),
    "zero-error": ("malformed error",),
    "lying-error-text": ("malformed error",),
    "long-error-text": ("chunk of type 32769 and 5006 bytes",),
    "huge-error": ("chunk of type 32769 and 4294967295 bytes",),
    "hole-beyond": ("answered with 1 bytes at offset",),
    "empty-hole": ("answered with 0 bytes at offset",),
    "huge-hole": ("answered with 4294967295 bytes at offset",),
    "wrapped-hole": ("bytes at offset",),
    "huge-chunk": ("chunk of type 1 and 4294967295 bytes",),
    "empty-chunk": ("chunk of type 1 and 8 bytes",),
    "endless-nothing": ("chunk of type 0 and 0 bytes",),
    "full-nothing": ("chunk of type 0 and 4 bytes",),
    "twice": ("answered a request that was not made",),
    "status-for-data": ("chunk of type 5",),
}
STATUS = {
    "empty-extent": ("extent of 0 bytes",),
    "long-extents": ("extent of 4096 bytes after",),
    "wrong-context": ("context 77, which was not agreed on",),
    "no-status": ("success without the status",),
    "huge-status": ("chunk of type 5 and 4294967292 bytes",),
    "context-twice": ("status of context 7 twice",),
    "uneven-status": ("chunk of type 5 and 16 bytes",),
    "data-for-status": ("chunk of type 1 and 9 bytes",),
    "status-eio": ("Input/output error (5)", "no map"),
}
# What there is without structured replies; the others are chunks, which break the agreement.
SIMPLE = {
    "wrong-cookie": READ["wrong-cookie"],
    "long-chunk": ("chunk where simple replies were agreed on",),
    "eio": ("chunk where simple replies were agreed on",),
    "twice": ("chunk where simple replies were agreed on",),
    "simple-error": ("Input/output error (5)",),
    "simple": LATE,  # its data doesn't come
    **{fault: READ[fault] for fault in ("bad-magic", "extended", "echo", "close", "bye", "cut",
                                        "silent")}}
EVERYTHING = {**dict.fromkeys(HARMLESS), **HANDSHAKE, **READ, **STATUS}


@pytest.fixture(scope="module")
def credentials(tmp_path_factory):
    return Credentials(str(tmp_path_factory.mktemp("credentials")))


def name_of(server):
    return f"127.0.0.1:{server.port}" if server.tls else server.socket


def judge(result, server, target, words):
    """Exactly the export under its name, or one line and nothing that looks like it."""
    if words is None:
        result.check(0)
        if target:
            assert_same(server.source, target)
        return
    result.check(1, name_of(server), *(words if words is not LATE else ()))
    assert words is not LATE or LATE.search(result.message), result
    assert len(result.message) < 1000, result
    if target:
        assert not os.path.lexists(target), result
        if "--resume goes on" in result.message:
            assert os.path.exists(part(target)) and os.path.exists(journal(target)), result
        else:
            assert_absent(target)


def try_fault(server, words, how, target):
    with server:
        timeout = "--timeout=1" if words is LATE else "--timeout=30"
        run = copy_measured if server.tls and target else copy  # once is enough
        result = run(server.uri(), target or "null:", timeout, *how)
        judge(result, server, target, words)
    if not SANITIZED:
        assert result.rss_kib < 64 * KIB, result.rss_kib


def try_all(tmp_path, cases, tls=None, options=(), how=(), to_file=True):
    """`cases`: fault to words, None where the copy must succeed.  Several at the same time: many of
    them wait for a time-out."""
    def one(case):
        fault, words = case
        directory = tmp_path / fault
        os.mkdir(directory)
        target = f"{directory}/disk.raw" if to_file else None
        try:
            try_fault(Hostile(directory, fault, *options, tls=tls), words, how, target)
        except AssertionError as error:
            return f"{fault}: {error}"
        return None
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        wrong = [text for text in pool.map(one, cases.items()) if text]
    assert not wrong, "\n".join(wrong)


def test_every_fault_is_tried():
    assert set(Hostile.faults()) == set(EVERYTHING)


def test_over_a_socket(tmp_path):
    try_all(tmp_path, {**EVERYTHING, **dict.fromkeys(IN_TLS)})


def test_over_tls(tmp_path, credentials):
    try_all(tmp_path, EVERYTHING, credentials.good)


def test_simple_replies(tmp_path):
    try_all(tmp_path, SIMPLE, options=("--simple",))


def test_without_status_simple(tmp_path):
    """Nobody asks for what isn't there: these faults can't be met."""
    never = dict.fromkeys(("honest", "no-go", "foreign-context", "endless-contexts", "no-status"))
    try_all(tmp_path, never, options=("--simple", "--holes"))


def test_several_connections_and_verify(tmp_path):
    try_all(tmp_path, {"honest": None, **READ, **STATUS}, options=("--multi-conn",),
            how=("--connections=4", "--verify"))


def test_late_and_to_nowhere(tmp_path, credentials):
    """Some requests go well before, and others are under way."""
    try_all(tmp_path, {"honest": None, **READ}, credentials.good,
            ("--at=3", "--no-status", "--holes", "--min-block=1", "--max-payload=65536"),
            to_file=False)


def test_memory_while_much_is_under_way(tmp_path, credentials):
    """More is asked for than fits into the limit, and more extents come than are kept."""
    for fault, words in (("honest", None), ("stall", LATE),
                         ("crumbs", ("block status", "chunk of type 5"))):
        with Hostile(tmp_path, fault, f"--size={100 * MIB}", tls=credentials.good) as server:
            timeout = "--timeout=1" if words is LATE else "--timeout=30"
            result = copy_measured(server.uri(), "null:", timeout)
            judge(result, server, None, words)
        os.unlink(server.source)
        assert SANITIZED or result.rss_kib < 64 * KIB, (fault, result.rss_kib)
