"""Downloads, from a real server on loopback that also fails on purpose: one good copy, or nothing and a clear error."""

import bz2
import contextlib
import errno
import hashlib
import io
import json
import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from conftest import digits
from hypothesis import given
from hypothesis import strategies as st

import fedsim_np as fed
from fedsim_np.cli import main
from fedsim_np.datasets import download, emnist
from fedsim_np.datasets.download import DownloadError, Patience, cache_folder, fetch, unpack

FILES = "set_train.h5", "set_test.h5"
QUICK = Patience(attempts=3, pause=0.01, timeout=5.0)


def tar(members):
    """A .tar.bz2 of (TarInfo or name, content)."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:bz2") as file:
        for member, content in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def noise(seed, size=300_000):
    return np.random.default_rng(seed).bytes(size)


TRAIN, TEST = noise(1), noise(2, 50_000)
GOOD = tar([(FILES[0], TRAIN), (FILES[1], TEST)])


class _Handler(BaseHTTPRequestHandler):
    """Answers /NAME as the server's `behaviours` say; they may give another answer each time."""

    def do_GET(self):
        self.server.requests.append(self.path)
        behaviour = self.server.behaviours[self.path]
        if isinstance(behaviour, list):
            behaviour = behaviour.pop(0) if len(behaviour) > 1 else behaviour[0]
        behaviour(self)

    def log_message(self, *_):
        pass


def answer(body=GOOD, status=200, length=None, send=None, **headers):
    """Behave: a status, a body, perhaps a wrong length or only a part of the body."""

    def behave(handler):
        handler.send_response(status)
        if length is not False:
            handler.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body if send is None else body[:send])

    return behave


def slow(seconds, body=GOOD):
    """Send half, wait, send the rest."""

    def behave(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[: len(body) // 2])
        handler.wfile.flush()
        handler.server.let_go.wait(seconds)
        with contextlib.suppress(OSError):  # the client may have given up
            handler.wfile.write(body[len(body) // 2 :])

    return behave


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    """A server whose `behaviours` the test fills in."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with _Server(("127.0.0.1", 0), _Handler) as running:
        running.behaviours, running.requests, running.let_go = {"/set.tar.bz2": answer()}, [], threading.Event()
        running.url = f"http://127.0.0.1:{running.server_port}/set.tar.bz2"
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.let_go.set()
        running.shutdown()
        thread.join()


def get(server, folder, body=GOOD, patience=QUICK):
    return fetch(server.url, hashlib.sha256(body).hexdigest(), FILES, folder, patience)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


WHOLE = {FILES[0]: TRAIN, FILES[1]: TEST}


def test_downloads_checks_and_unpacks(server, folder, capsys):
    paths = get(server, folder / "new" / "cache")
    assert [path.name for path in paths] == list(FILES)
    assert contents(folder / "new" / "cache") == WHOLE
    said = capsys.readouterr().err
    assert f"downloading {server.url}, {len(GOOD) / 1e6:.1f} MB" in said
    assert "(100 %)" in said


def test_files_that_are_there_need_no_network(folder):
    for name, content in WHOLE.items():
        (folder / name).write_bytes(content)
    assert fetch("http://127.0.0.1:9/none.tar.bz2", "no", FILES, folder) == [folder / name for name in FILES]


@pytest.mark.parametrize(
    ("behaviours", "requests"),
    [
        ([answer(status=503), answer()], 2),
        ([answer(send=1000), answer(send=0), answer()], 3),
        ([answer(length=len(GOOD) + 10), answer()], 2),
        ([answer(length=False)], 1),
        ([slow(0.05)], 1),
    ],
)
def test_what_passes_is_tried_again(server, folder, behaviours, requests, capsys):
    server.behaviours["/set.tar.bz2"] = behaviours
    get(server, folder)
    assert contents(folder) == WHOLE
    assert len(server.requests) == requests
    assert capsys.readouterr().err.count("trying again in") == requests - 1


def test_a_redirect_is_followed_and_one_in_a_circle_is_not(server, folder):
    server.behaviours = {
        "/set.tar.bz2": answer(b"", 302, Location="/elsewhere"),
        "/elsewhere": answer(),
    }
    get(server, folder)
    assert contents(folder) == WHOLE
    server.behaviours["/elsewhere"] = answer(b"", 302, Location="/set.tar.bz2")
    with pytest.raises(DownloadError, match="the server says 302"):
        get(server, folder / "other")


FAILURES = {
    "404": (answer(b"no", 404), DownloadError, "the server says 404 Not Found"),
    "another status": (answer(b"half", 206), DownloadError, "the server says 206"),
    "503 for ever": (answer(b"", 503), DownloadError, r"\(3 attempts\): the server says 503"),
    "cut": (answer(send=len(GOOD) // 2), DownloadError, rf"\(3 attempts\): .*{len(GOOD)}"),
    "slow": (slow(20), DownloadError, r"\(3 attempts\): .*timed out"),
    "wrong bytes": (answer(GOOD[:-1] + b"!"), fed.DataError, "the SHA-256 must be"),
    "another file": (answer(b"<html>please log in</html>"), fed.DataError, "the SHA-256 must be"),
    "too short a length": (answer(length=1000), fed.DataError, "the SHA-256 must be"),
    "too long a length": (answer(length=len(GOOD) + 1), DownloadError, r"\(3 attempts\)"),
    "nonsense": (lambda handler: handler.wfile.write(b"\0\1\2\r\n\r\n"), DownloadError, r"\(3 attempts\)"),
    "a redirect to a file": (
        answer(b"", 302, Location="file:///etc/passwd"),
        DownloadError,
        "could not be downloaded",
    ),
}


@pytest.mark.parametrize("name", FAILURES)
@pytest.mark.parametrize("before", ["nothing", "one good file"])
def test_a_failure_leaves_what_was_there_and_nothing_else(server, folder, name, before):
    server.behaviours["/set.tar.bz2"], kind, message = FAILURES[name]
    if before != "nothing":
        (folder / FILES[0]).write_bytes(b"mine")
    with pytest.raises(kind, match=message) as caught:
        get(server, folder, patience=QUICK._replace(timeout=0.3))
    assert server.url in str(caught.value)
    assert contents(folder) == ({} if before == "nothing" else {FILES[0]: b"mine"})


def test_a_good_file_that_is_there_is_kept(server, folder):
    (folder / FILES[0]).write_bytes(b"mine")
    get(server, folder)
    assert contents(folder) == {FILES[0]: b"mine", FILES[1]: TEST}


def test_offline_is_said_at_once(folder, monkeypatch, capsys):
    def offline(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", offline)
    with pytest.raises(DownloadError, match="Name or service not known"):
        fetch("http://example.invalid/set.tar.bz2", "", FILES, folder, QUICK)
    assert "trying again" not in capsys.readouterr().err


def test_attempts_are_further_and_further_apart(server, folder, monkeypatch):
    pauses = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    server.behaviours["/set.tar.bz2"] = answer(b"", 429)
    with pytest.raises(DownloadError, match=r"\(4 attempts\): the server says 429"):
        get(server, folder, patience=Patience())
    assert pauses == [1.0, 2.0, 4.0]


def test_a_full_disk_names_the_folder(server, folder, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download, "_download", full)
    with pytest.raises(OSError, match=re.escape(str(folder))):
        get(server, folder)
    assert contents(folder) == {}


def test_nobody_there(folder):
    with pytest.raises(DownloadError, match=r"\(3 attempts\).*refused"):
        fetch("http://127.0.0.1:9/set.tar.bz2", "", FILES, folder, QUICK)
    for url in (
        "file:///etc/passwd",
        "ftp://x/y",
        "set.tar.bz2",
        "",
        "http://",
        "http:///x",
        "http://a/b c",
        "http://a/é",
    ):
        with pytest.raises(DownloadError, match="an address is https:// or http://, a host and a path"):
            fetch(url, "", FILES, folder, QUICK)
    assert not list(folder.iterdir())


def test_a_file_without_end_is_cut_off(server, folder, monkeypatch):
    monkeypatch.setattr(download, "_MOST", 1000)
    with pytest.raises(DownloadError, match="it is longer than 1000 bytes"):
        get(server, folder)
    assert contents(folder) == {}


def _get_in_a_process(url, folder, barrier):
    barrier.wait(60)
    fetch(url, hashlib.sha256(GOOD).hexdigest(), FILES, folder, QUICK)


def test_two_processes_at_once_end_with_one_good_copy(server, folder):
    server.behaviours["/set.tar.bz2"] = slow(0.2)
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    processes = [context.Process(target=_get_in_a_process, args=(server.url, folder, barrier)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert contents(folder) == WHOLE


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
def test_ctrl_c_and_kill_leave_no_half_file(server, folder):
    server.behaviours["/set.tar.bz2"] = slow(60)
    arguments = [sys.executable, "-m", "fedsim_np", "data", "download", "--url", server.url, "--cache-dir", folder]
    for number in (signal.SIGINT, signal.SIGKILL):
        requests = len(server.requests)
        process = subprocess.Popen(arguments, stderr=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8")
        try:
            deadline = time.monotonic() + 60
            while len(server.requests) == requests:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            assert any("archive.tar.bz2" in names for _, _, names in os.walk(folder))
            process.send_signal(number)
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
            process.communicate()
        if number == signal.SIGINT:
            assert process.returncode == 130
            assert err.splitlines()[-1] == "fedsim-np: interrupted"
            assert contents(folder) == {}
    left = list(folder.iterdir())
    assert len(left) == 1  # of the killed one, under a name that nobody reads
    old = time.time() - 2 * 24 * 3600
    for path in (*left[0].iterdir(), left[0]):
        os.utime(path, (old, old))
    server.let_go.set()
    get(server, folder)
    assert contents(folder) == WHOLE


def member(name, kind=tarfile.REGTYPE, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


EVIL = {
    "a path upwards": member("../set_train.h5"),
    "an absolute path": member("/set_train.h5"),
    "a folder before it": member("data/set_train.h5"),
    "a backslash": member("..\\set_train.h5"),
    "an unexpected name": member("other.h5"),
    "a symbolic link": member("set_train.h5", tarfile.SYMTYPE, "/etc/passwd"),
    "a hard link": member("set_train.h5", tarfile.LNKTYPE, "../../secret"),
    "a device": member("set_train.h5", tarfile.CHRTYPE),
    "a pipe": member("set_train.h5", tarfile.FIFOTYPE),
    "a folder by that name": member("set_train.h5", tarfile.DIRTYPE),
}


@pytest.mark.parametrize("name", EVIL)
@pytest.mark.parametrize("first", [True, False])
def test_unexpected_members_are_refused(folder, name, first):
    outside = folder / "outside"
    outside.mkdir()
    good = [(FILES[1], TEST)] if first else [(FILES[0], TRAIN), (FILES[1], TEST)]
    members = [(EVIL[name], b""), *good] if first else [*good, (EVIL[name], b"")]
    (outside / "a.tar.bz2").write_bytes(tar(members))
    with pytest.raises(fed.DataError, match="must hold the files set_train.h5, set_test.h5 and nothing else"):
        unpack(outside / "a.tar.bz2", FILES, outside)
    assert [path.name for path in folder.iterdir()] == ["outside"]
    assert not any(path.is_symlink() for path in outside.iterdir())


def test_an_archive_must_be_complete_and_have_a_file_once(folder):
    path = folder / "a.tar.bz2"
    path.write_bytes(tar([(FILES[0], TRAIN)]))
    with pytest.raises(fed.DataError, match=r"Got no set_test\.h5"):
        unpack(path, FILES, folder)
    path.write_bytes(tar([(FILES[0], TRAIN), (FILES[0], TRAIN)]))
    with pytest.raises(fed.DataError, match=r"Got 'set_train\.h5', 300000 bytes"):
        unpack(path, FILES, folder)
    path.write_bytes(tar([("./" + FILES[0], TRAIN), (member(".", tarfile.DIRTYPE), b""), (FILES[1], TEST)]))
    assert [p.read_bytes() for p in unpack(path, FILES, folder)] == [TRAIN, TEST]


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255), st.booleans())
def test_damaged_archives_are_refused_or_whole(tmp_path_factory, place, flip, cut):
    folder = tmp_path_factory.mktemp("archive")
    damaged = GOOD[:place] if cut else GOOD[:place] + bytes([GOOD[place] ^ flip]) + GOOD[place + 1 :]
    (folder / "a.tar.bz2").write_bytes(damaged)
    try:
        paths = unpack(folder / "a.tar.bz2", FILES, folder)
    except fed.DataError:
        return
    assert [path.read_bytes() for path in paths] == [TRAIN, TEST]


def test_no_archive_of_another_kind(folder):
    for content in (b"", b"text", bz2.compress(b"text"), bz2.compress(noise(3, 20_000)), GOOD[: len(GOOD) // 3]):
        (folder / "a.tar.bz2").write_bytes(content)
        with pytest.raises(fed.DataError):
            unpack(folder / "a.tar.bz2", FILES, folder)


def test_the_cache_folder(monkeypatch, folder):
    monkeypatch.setenv("FEDSIM_NP_CACHE", str(folder / "named"))
    assert cache_folder() == folder / "named"
    assert cache_folder(folder / "asked for") == folder / "asked for"
    monkeypatch.delenv("FEDSIM_NP_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "xdg"))
    monkeypatch.setenv("LOCALAPPDATA", str(folder / "local"))
    usual = {"linux": folder / "xdg", "win32": folder / "local", "darwin": cache_folder("~/Library/Caches")}
    for platform, parent in usual.items():
        monkeypatch.setattr(sys, "platform", platform)
        assert cache_folder() == parent / "fedsim_np"


# --- emnist


@pytest.fixture
def small_release(server, folder, monkeypatch):
    """The digits as they are published, but of three writers and from the server here."""
    files = [folder / f"fed_emnist_digitsonly_{split}.h5" for split in ("train", "test")]
    for seed, path in enumerate(files):
        fed.datasets.write_hdf5(path, digits([4, 2, 3], seed))
    body = tar([(path.name, path.read_bytes()) for path in files])
    for path in files:
        path.unlink()
    server.behaviours = {"/fed_emnist_digitsonly.tar.bz2": answer(body), "/set.tar.bz2": answer(b"", 404)}
    monkeypatch.setattr(emnist, "_ADDRESS", server.url.rpartition("/")[0])
    changed = emnist.RELEASES[True]._replace(sha256=hashlib.sha256(body).hexdigest(), num_clients=3)
    monkeypatch.setitem(emnist.RELEASES, True, changed)
    return server


def test_load_data_downloads_once(small_release, folder):
    for _ in range(2):
        train, test = emnist.load_data(cache_dir=folder)
        assert train.client_ids == test.client_ids
        expected = digits([4, 2, 3], 0).create_dataset_for_client("f0000_00").to_arrays()
        arrays = train.create_dataset_for_client("f0000_00").to_arrays()
        np.testing.assert_array_equal(arrays["pixels"], expected["pixels"])
        assert train.element_type_structure == emnist.DIGITS.spec
    assert small_release.requests == ["/fed_emnist_digitsonly.tar.bz2"]


def test_a_failure_says_what_to_do_instead(small_release, folder, monkeypatch):
    small_release.behaviours["/fed_emnist_digitsonly.tar.bz2"] = answer(b"", 404)
    with pytest.raises(OSError, match="the server says 404") as caught:
        emnist.load_data(cache_dir=folder)
    for part in (
        "fed.datasets.synthetic.load_data()",
        "put fed_emnist_digitsonly_train.h5 and fed_emnist_digitsonly_test.h5 into",
        str(folder),
    ):
        assert part in str(caught.value)
    small_release.behaviours["/fed_emnist_digitsonly.tar.bz2"] = answer(GOOD)
    with pytest.raises(fed.DataError, match=r"SHA-256 must be .* Instead, fed\.datasets\.synthetic"):
        emnist.load_data(cache_dir=folder)


def test_files_of_other_writers_are_refused(small_release, folder, monkeypatch):
    for split in ("train", "test"):
        fed.datasets.write_hdf5(folder / f"fed_emnist_digitsonly_{split}.h5", digits([4, 2]))
    with pytest.raises(fed.DataError, match=r"must have 3 clients \(remove it to have it downloaded again\). Got 2"):
        emnist.load_data(cache_dir=folder)
    with pytest.raises(TypeError, match="'only_digits' must be True or False. Got 'no'."):
        emnist.load_data("no")


def test_what_is_published():
    digits_only, everything = emnist.RELEASES[True], emnist.RELEASES[False]
    assert digits_only.url == "https://storage.googleapis.com/tff-datasets-public/fed_emnist_digitsonly.tar.bz2"
    assert everything.url == "https://storage.googleapis.com/tff-datasets-public/fed_emnist.tar.bz2"
    assert everything.files == ("fed_emnist_train.h5", "fed_emnist_test.h5")
    assert (digits_only.schema, everything.schema) == (emnist.DIGITS, emnist.CHARACTERS)


def test_published_addresses_and_checksums(shared):
    printed = json.loads((shared / "goldens" / "tutorial_printed.json").read_text(encoding="utf-8"))
    for release, files, sizes in (
        (emnist.RELEASES[True], printed["files"], printed["sizes"]["digits"]),
        (emnist.RELEASES[False], printed["all_characters"], printed["sizes"]["all"]),
    ):
        assert (release.url, release.sha256) == (files["url"], files["sha256"])
        assert release.num_clients == sizes["clients"]


def test_the_command(small_release, folder, capsys, monkeypatch):
    monkeypatch.setenv("FEDSIM_NP_CACHE", str(folder / "cache"))
    assert main(["data", "download"]) == 0
    out = capsys.readouterr().out
    train = folder / "cache" / "fed_emnist_digitsonly_train.h5"
    assert train.is_file()
    assert f'fedsim-np tutorial --train "{train}" --test' in out
    assert main(["tutorial", "--emnist", "--clients", "2", "--rounds", "1"]) == 0
    assert f"train: 3 clients in {train}" in capsys.readouterr().out
    assert main(["tutorial", "--emnist", "--train", "a.h5", "--test", "b.h5"]) == 2
    capsys.readouterr()
    assert main(["data", "download", "--url", small_release.url, "--cache-dir", str(folder / "other")]) == 2
    captured = capsys.readouterr()
    error = captured.err.splitlines()[-1]
    assert error.startswith(f"fedsim-np: error: {small_release.url} could not be downloaded")
    assert "Traceback" not in captured.err


def test_without_a_network_a_shell_is_told_what_it_has_instead(small_release, folder, monkeypatch, capsys):
    small_release.behaviours["/fed_emnist_digitsonly.tar.bz2"] = answer(b"", 404)
    monkeypatch.setenv("FEDSIM_NP_CACHE", str(folder))
    assert main(["tutorial", "--emnist"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("fedsim-np: error: ")
    advice = re.search(r"in a shell: fedsim-np (train .*?)\)", error)[1]
    monkeypatch.chdir(folder)
    assert main([*advice.split(), "--rounds", "1", "--evaluation-clients", "2"]) == 0
    assert "fedsim-np data download" in error


def dripping(handler):
    """Send a header without end, byte by byte."""
    with contextlib.suppress(OSError):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
        while not handler.server.let_go.wait(0.02):
            handler.wfile.write(b"x")
            handler.wfile.flush()


def dripping_body(handler):
    """Send a chunked body, byte by byte."""
    with contextlib.suppress(OSError):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not handler.server.let_go.wait(0.02):
            handler.wfile.write(b"1\r\nx\r\n")
            handler.wfile.flush()


@pytest.mark.parametrize("behaviour", [dripping, dripping_body])
def test_a_server_that_sends_a_byte_now_and_then_is_given_up(server, folder, behaviour):
    server.behaviours["/set.tar.bz2"] = behaviour
    with pytest.raises(DownloadError, match=r"set.tar.bz2 could not be downloaded: it has not arrived within 0.2 s\."):
        get(server, folder, patience=Patience(attempts=3, pause=0.01, timeout=5.0, total=0.2))
    assert contents(folder) == {}


def test_a_reason_with_escape_sequences_does_not_reach_the_terminal(server, folder, capsys):
    def behave(handler):
        handler.send_response(404, "\x1b]0;owned\x07 \x1b[2J" + "long " * 9999)
        handler.end_headers()

    server.behaviours["/set.tar.bz2"] = behave
    assert main(["data", "download", "--url", server.url, "--cache-dir", str(folder)]) == 2
    error = capsys.readouterr().err
    assert "\x1b" not in error
    assert "\x07" not in error
    assert "\\x1b]0;owned\\x07" in error
    assert len(error.splitlines()[-1]) < 2100
