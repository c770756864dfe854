# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where the session of a run is kept: who finds it, who does not, and when it is gone. No server is asked: its port is closed."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk.progress import start_time
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import session_store
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.session_store import Record, Store, end_run, open_store

RUN = "ops-1-2"
SECRET = "vmware_soap_session=0a1b2c"
#: In a process of its own: takes the session's turn, and logs in (writes a line) unless somebody has.
USER = """
import dataclasses, os, sys, time
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.session_store import Record, open_store
store = open_store("vc", 1, "me", "word", True, None)
with store.turn() as turn:
    if turn.read() is None:
        with open(sys.argv[1], "a") as f:
            f.write("login\\n")
        time.sleep(0.1)
        turn.write(Record("127.0.0.1", 1, False, None, store.run, "c=1", "key", "SessionManager", "v", "8.0"))
if len(sys.argv) > 2:
    with store.turn():
        print("held", flush=True)
        time.sleep(600)
store.release()
"""


def record(run: str = RUN) -> Record:
    return Record("127.0.0.1", 1, False, None, run, SECRET, "key-1", "SessionManager", "vim.version.v8", "8.0")


@pytest.fixture
def environ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("FERRY_RUN", RUN)
    return {"XDG_RUNTIME_DIR": str(tmp_path), "FERRY_RUN": RUN}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "ferry-vmware-sessions"


def store(environ: dict[str, str], password: str = "word", run: str = RUN) -> Store | None:
    return open_store("VC", 443, "me", password, True, None, {**environ, "FERRY_RUN": run})


def kept(environ: dict[str, str], run: str = RUN) -> Store:
    found = store(environ, run=run)
    assert found is not None
    with found.turn() as turn:
        turn.write(record(run))
    return found


def names(folder: Path) -> set[str]:
    return {p.suffix for p in folder.iterdir()}


@pytest.mark.parametrize("run", ["", "../x", "a b", "x" * 201, "ä"])
def test_nothing_is_shared_without_a_run(environ: dict[str, str], folder: Path, run: str) -> None:
    assert store(environ, run=run) is None
    assert not folder.exists()


def test_only_who_knows_the_password_finds_it(environ: dict[str, str], folder: Path) -> None:
    first = kept(environ)
    same, other, elsewhere = store(environ), store(environ, "wrong"), store(environ, run="ops-3-4")
    assert same is not None and other is not None and elsewhere is not None
    for asked, found in ((same, record()), (other, None), (elsewhere, None)):
        with asked.turn() as turn:
            assert turn.read() == found
    for one in (first, same, other, elsewhere):
        one.release()
    assert {stat.S_IMODE(p.stat().st_mode) for p in folder.iterdir()} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert SECRET not in repr(record()) and "key-1" not in repr(record())
    assert not any("word" in p.name or "word" in p.read_text() for p in folder.iterdir())


def spoil_open(folder: Path) -> None:
    folder.chmod(0o755)


def spoil_owner(folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder to another user")
    os.chown(folder, 12345, 12345)


def spoil_link(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to("elsewhere")


@pytest.mark.parametrize("spoil", [spoil_open, spoil_owner, spoil_link])
@pytest.mark.fault(
    "the folder of sessions belongs to somebody else, is open to others, or is a link",
    where="vCenter",
    ends="nothing is shared or written there: a session of its own",
)
def test_a_folder_that_is_not_ours_alone_is_left(environ: dict[str, str], folder: Path, spoil: Callable[[Path], None]) -> None:
    kept(environ).release()
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    spoil(folder)
    assert store(environ) is None
    assert end_run(RUN, environ) == 0
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


@pytest.mark.parametrize("kind", ["link", "hard_link", "mode", "pipe"])
@pytest.mark.parametrize("suffix", [".use", ".session"])
def test_a_file_that_is_not_ours_alone_is_not_read(environ: dict[str, str], folder: Path, kind: str, suffix: str) -> None:
    kept(environ).release()
    path = next(p for p in folder.iterdir() if p.suffix == suffix)
    if kind == "mode":
        path.chmod(0o644)
    elif kind == "hard_link":
        os.link(path, folder / "other")
    else:
        moved = path.rename(folder.parent / "moved")
        path.symlink_to(moved) if kind == "link" else os.mkfifo(path, 0o600)
    found = store(environ)
    if suffix == ".use":
        assert found is None
        return
    assert found is not None
    with pytest.raises(OSError), found.turn():
        pass
    found.release()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "[" * 100_000,
        json.dumps({**dataclasses.asdict(record()), "more": 1}),
        json.dumps({**dataclasses.asdict(record()), "cookie": "a\r\nHost: evil"}),
        json.dumps({**dataclasses.asdict(record()), "cookie": ""}),
        json.dumps({**dataclasses.asdict(record()), "port": "443"}),
        json.dumps({**dataclasses.asdict(record()), "cookie": "x" * 20_000}),
    ],
    ids=["empty", "cut", "list", "null", "deep", "more", "header", "no-cookie", "port", "long"],
)
def test_what_is_none_of_ours_counts_as_no_session(environ: dict[str, str], folder: Path, text: str) -> None:
    found = kept(environ)
    next(p for p in folder.iterdir() if p.suffix == ".session").write_text(text)
    with found.turn() as turn:
        assert turn.read() is None
        turn.write(record())
        assert turn.read() == record()
    found.release()


def test_of_ten_that_come_at_once_one_logs_in(environ: dict[str, str], tmp_path: Path) -> None:
    log = tmp_path / "log"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    users = [subprocess.Popen([sys.executable, "-c", USER, str(log)], env=env) for _n in range(10)]
    assert [u.wait(60) for u in users] == [0] * 10
    assert log.read_text() == "login\n"


@pytest.mark.fault(
    "SIGKILL of a task while it holds the session's lock", where="vCenter", ends="the next task takes its turn; the session is still ended"
)
def test_a_killed_user_holds_nobody_up(environ: dict[str, str], folder: Path, tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    user = subprocess.Popen([sys.executable, "-c", USER, str(tmp_path / "log"), "hold"], env=env, stdout=subprocess.PIPE, text=True)
    assert user.stdout is not None and user.stdout.readline() == "held\n"
    user.send_signal(signal.SIGKILL)
    user.communicate(timeout=30)
    found = open_store("vc", 1, "me", "word", True, None)
    assert found is not None
    with found.turn() as turn:
        assert turn.read() is not None
    found.release()
    assert end_run(RUN, environ) == 1 and names(folder) == set()


def test_the_last_to_leave_ends_it(environ: dict[str, str], folder: Path) -> None:
    first, second = kept(environ), store(environ)
    assert second is not None
    assert end_run(RUN, environ) == 0 and names(folder) == {".use", ".session", ".ended"}
    first.release()
    assert names(folder) == {".use", ".session", ".ended"}
    second.release()
    assert names(folder) == set()
    kept(environ).release()
    kept(environ, "ops-3-4").release()
    assert end_run(RUN, environ) == 1 and names(folder) == {".use", ".session"}


def _run_of(pid: int, host: str = "") -> str:
    return f"{host or socket.gethostname()}-{pid}-{start_time(pid)}"


@pytest.mark.fault("SIGKILL of ansible-playbook, its session left behind", where="vCenter", ends="logged out at a later log-in here")
def test_what_killed_runs_left_is_swept(environ: dict[str, str], folder: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    dead = _run_of(gone.pid)
    gone.communicate(b"\n", timeout=30)
    runs = {"dead": dead, "alive": _run_of(os.getpid()), "far": "elsewhere-1-2", "idle": "elsewhere-3-4", "used": "elsewhere-5-6"}
    held: dict[str, Any] = {name: kept(environ, run) for name, run in runs.items()}
    for name, one in held.items():
        if name != "used":
            one.release()
    old = time.time() - session_store.IDLE - 10
    own = kept(environ)
    by_run = {json.loads(p.read_text())["run"]: p.stem for p in folder.glob("*.session")}
    for name in ("idle", "used"):
        os.utime(folder / f"{by_run[runs[name]]}.use", (old, old))
    own.sweep()
    left = {json.loads(p.read_text())["run"] for p in folder.glob("*.session")}
    assert left == {RUN, runs["alive"], runs["far"], runs["used"]}
    assert not list(folder.glob("*.ended"))
    own.release()
    held["used"].release()
