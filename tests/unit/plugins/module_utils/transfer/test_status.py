# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The state of migrations from real ledgers: of copies that ended, that were killed, that run; and of ledgers that cannot be read."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk import ledger_view
from ansible_collections.ferry.vmware.plugins.module_utils.disk.ledger import DATA, ZERO, Ledger, file_name
from ansible_collections.ferry.vmware.plugins.module_utils.disk.progress import Progress
from ansible_collections.ferry.vmware.plugins.module_utils.errors import FerryError, Interrupted
from ansible_collections.ferry.vmware.plugins.module_utils.transfer import disk_copy, noted, status
from ansible_collections.ferry.vmware.plugins.module_utils.transfer.wanted import Wanted

MIB = 1 << 20
UUID = "5030aaaa-0000-4000-8000-000000000001"
OPTIONS: dict[str, Any] = {
    "vm": None,
    "snapshot": None,
    "quiesce": "auto",
    "mode": "auto",
    "transport": "auto",
    "workers": 2,
    "chunk_size": MIB,
    "verify": "none",
    "checksum": "none",
    "patience": 5,
    "take_over": False,
    "root_helper": "sudo",
    "progress_interval": 5.0,
    "lease_seconds": 0.0,
}
CHILD = """
import json, os, sys
from ansible_collections.ferry.vmware.plugins.module_utils.transfer import disk_copy
disk_copy.run(json.load(sys.stdin))
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Status files and states of others are none of our business."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    return tmp_path / "home"


def wanted(capacity: int = 8 * MIB, label: str = "Hard disk 1", key: str = "2000") -> Wanted:
    return Wanted(label, key, capacity, {"path": f"/images/{key}.raw"})


def ledger(folder: Path, vm: str = UUID, w: Wanted | None = None) -> Ledger:
    w = w or wanted()
    return Ledger(str(folder / "ledgers" / file_name(vm, w.key, w.target)), w.capacity)


def migration(folder: Path, name: str = "db01", vm: str = UUID, w: Wanted | None = None, **facts: Any) -> Ledger:
    """A ledger as a copy has it that has begun."""
    w = w or wanted()
    found = ledger(folder, vm, w)
    noted.begun(found, w, name, vm)
    found.begin("forget", **{"state": "copying", "generation": 1, "disk": w.label, "target": w.target, "pass": "full", **facts})
    return found


def params(tmp_path: Path, **more: Any) -> dict[str, Any]:
    disk = {"disk": None, "dest": {"path": str(tmp_path / "out.raw"), "volume": None, "image": None}, "format": "raw"}
    return {**OPTIONS, "source": str(tmp_path / "in.raw"), "disks": [disk], "ledger": str(tmp_path / "state"), **more}


def source(tmp_path: Path, mib: int) -> None:
    (tmp_path / "in.raw").write_bytes(random.Random(mib).randbytes(mib * MIB))


def one(folder: Path, **more: Any) -> dict[str, Any]:
    found = status.read(str(folder), **more)
    assert found["problems"] == []
    assert len(found["migrations"]) == 1
    return dict(found["migrations"][0])


def test_nothing_is_known_where_nothing_was_copied(tmp_path: Path) -> None:
    assert status.read(str(tmp_path)) == {"migrations": [], "tasks": [], "problems": [], "ledger": str(tmp_path)}
    assert status.read()["ledger"].endswith("/.local/state/ferry")


def test_a_copy_that_ended(tmp_path: Path) -> None:
    source(tmp_path, 4)
    row = disk_copy.run(params(tmp_path))["disks"][0]
    found = one(tmp_path / "state")
    assert (found["state"], found["bytes_total"], found["bytes_done"], found["error"], found["next_command"]) == (
        "copied",
        4 * MIB,
        4 * MIB,
        "",
        "",
    )
    disk = found["disks"][0]
    assert (disk["digest"], disk["cycles"], disk["pid"], disk["target"]) == (row["digest"], 1, None, f"path:{tmp_path}/out.raw")
    assert disk["history"][0]["read"] == 4 * MIB and disk["copied_at"] > 0


@pytest.fixture
def running(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A copy in a process of its own that is slow, and has come some way."""
    source(tmp_path, 16)
    environment = {**os.environ, "FERRY_TASK_STATUS": str(tmp_path / "home/.ansible/ferry/vm_disk_copy-in-0.json")}
    (tmp_path / "home/.ansible/ferry").mkdir(parents=True)
    (tmp_path / "home/.ansible/ferry/vm_disk_copy-in-0.json.lease").touch()
    with subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        try:
            assert process.stdin is not None
            process.stdin.write(json.dumps(params(tmp_path, budget={"overall": {"rate": 3.0}})).encode())
            process.stdin.close()
            while not any(m["bytes_done"] and m["phase"] for m in status.read(str(tmp_path / "state"))["migrations"]):
                assert process.poll() is None
                time.sleep(0.05)
            yield process
        finally:
            process.kill()


@pytest.mark.fault("A copy is killed, and its ledger is all that is left", "conversion host", "ferry.vmware.status shows it as interrupted")
def test_a_copy_that_runs_and_then_is_killed(tmp_path: Path, running: subprocess.Popen[bytes]) -> None:
    found = one(tmp_path / "state")
    disk = found["disks"][0]
    assert (found["state"], disk["pid"], found["phase"], found["next_command"]) == ("running", running.pid, "copy", "")
    assert 0 < found["bytes_done"] < found["bytes_total"] == 16 * MIB
    assert status.read(str(tmp_path / "state"))["tasks"] == []
    before = found["bytes_done"]
    running.kill()
    running.wait()
    found = one(tmp_path / "state")
    assert (found["state"], found["phase"], found["rate"], found["disks"][0]["pid"]) == ("interrupted", "", 0, None)
    assert found["bytes_done"] >= before - 2 * MIB and "goes on inside the disk" in found["next_command"]
    disk_copy.run(params(tmp_path, budget={"overall": None}))
    assert one(tmp_path / "state")["state"] == "copied"


def test_a_copy_that_is_told_to_stop(tmp_path: Path, running: subprocess.Popen[bytes]) -> None:
    running.send_signal(signal.SIGTERM)
    running.wait()
    found = one(tmp_path / "state")
    assert found["state"] == "interrupted" and "SIGTERM" in found["error"]


def test_a_copy_that_fails_says_why_until_it_is_begun_again(tmp_path: Path) -> None:
    source(tmp_path, 2)
    with pytest.raises(FerryError):
        disk_copy.run(params(tmp_path, mode="incremental"))
    found = one(tmp_path / "state")
    assert found["state"] == "failed" and "More than the changes" in found["error"] and found["next_command"] == "run it with mode: auto"
    disk_copy.run(params(tmp_path))
    assert (one(tmp_path / "state")["state"], one(tmp_path / "state")["error"]) == ("copied", "")


def test_an_error_of_one_disk_is_not_that_of_another(tmp_path: Path) -> None:
    first, second = wanted(), wanted(label="Hard disk 2", key="2001")
    for w in (first, second):
        book = migration(tmp_path, w=w)
        noted.failed(book, w, FerryError("It broke.", disk="Hard disk 2", said="no space", next_command="make room"))
        book.close()
    found = one(tmp_path)
    assert (found["state"], found["error"], found["next_command"]) == ("failed", "It broke. Said: no space.", "make room")
    assert [(d["label"], d["state"]) for d in found["disks"]] == [("Hard disk 1", "interrupted"), ("Hard disk 2", "failed")]


def test_what_was_said_in_no_error_of_ours_is_not_kept(tmp_path: Path) -> None:
    book = migration(tmp_path)
    noted.failed(book, wanted(), KeyboardInterrupt())
    noted.failed(book, wanted(), None)
    assert book.fact(noted.ERROR) is None
    noted.failed(book, wanted(), Interrupted("Stopped: SIGINT."))
    book.close()
    assert (one(tmp_path)["state"], one(tmp_path)["error"]) == ("interrupted", "Stopped: SIGINT.")


def test_a_vm_that_runs_on_is_precopied(tmp_path: Path) -> None:
    book = migration(tmp_path, generation=3)
    book.set(state="complete", change_id="52 de/7", planned="52 de/7")
    book.close()
    found = one(tmp_path)
    assert (found["state"], found["cycles"]) == ("precopied", 3) and "cutover" in found["next_command"]


def test_an_older_ledger_knows_no_name(tmp_path: Path) -> None:
    ledger(tmp_path).close()
    found = one(tmp_path)
    assert (found["vm"], found["source"], found["state"], found["disks"][0]["key"]) == (UUID, UUID, "new", "2000")


def test_marks_count_within_this_boot_and_last_chunks_are_shorter(tmp_path: Path) -> None:
    w = wanted(3 * MIB + 512)
    book = migration(tmp_path, w=w)
    book.mark(0, bytes([DATA]), b"d" * 16)
    book.mark(3, bytes([ZERO]), None)
    path = book.path
    assert (ledger_view.look(path).done, ledger_view.look(path).zero) == (MIB + 512, 512)
    book.commit(book.position())
    book.mark(1, bytes([DATA]), b"d" * 16)
    assert ledger_view.look(path).done == 2 * MIB + 512
    book.close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE marks SET boot = 'another'")
    assert ledger_view.look(path).done == MIB + 512


def test_reading_takes_no_lease_and_changes_nothing(tmp_path: Path) -> None:
    book = migration(tmp_path)
    book.mark(0, bytes([DATA]), b"d" * 16)
    before = Path(book.path).read_bytes(), Path(book.path + "-wal").read_bytes()
    assert one(tmp_path)["bytes_done"] == MIB
    assert (Path(book.path).read_bytes(), Path(book.path + "-wal").read_bytes()) == before
    book.mark(1, bytes([DATA]), b"d" * 16)
    book.close()
    ledger(tmp_path).close()


def test_limits_are_names_patterns_and_uuids(tmp_path: Path) -> None:
    other = UUID.replace("5030", "5031")
    migration(tmp_path).close()
    migration(tmp_path, "受注 [1]", other).close()

    def names(*vms: str) -> list[str]:
        return [m["vm"] for m in status.read(str(tmp_path), vms)["migrations"]]

    assert names() == names("") == ["db01", "受注 [1]"]
    assert names("db*") == names(UUID.upper()) == ["db01"] and names("受注*") == names(other) == ["受注 [1]"]
    assert names("受注 [1]") == ["受注 [1]"]  # a name with brackets is itself before it is a pattern
    assert names("web") == []


# -- what cannot be read ----------------------------------------------------------------------------------------------


@pytest.mark.fault("A ledger is damaged, or of a later version", "conversion host", "ferry.vmware.status names it and shows the others")
def test_a_ledger_that_cannot_be_read_is_told_and_the_others_are_shown(tmp_path: Path) -> None:
    migration(tmp_path).close()
    folder = tmp_path / "ledgers"
    good = next(p for p in folder.iterdir() if p.suffix == ".sqlite")
    newer, torn, text, odd = (folder / file_name(f"{UUID[:-1]}{n}", "2000", "path:/x") for n in (2, 3, 4, 5))
    for path in (newer, torn, odd):
        shutil.copy(good, path)
    with sqlite3.connect(newer) as db:
        db.execute("PRAGMA user_version=9")
    with sqlite3.connect(odd) as db:
        db.execute("UPDATE facts SET value = '[1' WHERE name = 'state'")
    data = torn.read_bytes()
    torn.write_bytes(data[: len(data) // 3] + bytes(len(data) // 3) + data[len(data) // 3 * 2 :])
    text.write_text("no database at all " * 100)
    (folder / "notes.txt").write_text("not ours")
    (folder / file_name("link", "2000", "path:/x")).symlink_to(good)
    found = status.read(str(tmp_path))
    assert [m["vm"] for m in found["migrations"]] == ["db01"]
    by_path = {p["path"]: p for p in found["problems"]}
    assert set(by_path) == {str(p) for p in (newer, torn, text, odd)}
    assert by_path[str(newer)]["code"] == "ledger_newer" and "version 9" in by_path[str(newer)]["what"]
    assert all(by_path[str(p)]["code"] == "ledger" and f"move {p} away" in by_path[str(p)]["next_command"] for p in (torn, text, odd))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"version": 1, "pid": "x", "disks": {}}',
        '{"version": 1, "pid": 1, "disks": {}}',
        '{"version": 9, "pid": 5, "disks": {}}',
        "[" * 9999,
    ],
)
def test_status_files_that_are_none(home: Path, tmp_path: Path, text: str) -> None:
    folder = home / ".ansible" / "ferry"
    folder.mkdir(parents=True)
    (folder / "vm_disk_copy-x-0.json").write_text(text)
    (folder / "throughput.json").write_text("{}")
    (folder / "dir.json").mkdir()
    (folder / "loop.json").symlink_to(folder / "loop.json")
    os.mkfifo(folder / "pipe.json")
    assert status.read(str(tmp_path))["tasks"] == []


def test_what_keeps_no_ledger_is_told_while_it_lives(home: Path, tmp_path: Path) -> None:
    folder = home / ".ansible" / "ferry"
    folder.mkdir(parents=True)
    with Progress(str(folder / "vmdk_convert-x-0.json"), name="old.vmdk") as progress:
        progress.update("old.vmdk", "convert", 5, 10)
        progress._write("running")
        (task,) = status.read(str(tmp_path))["tasks"]
        assert (task["name"], task["phase"], task["done"], task["total"], task["pid"]) == ("old.vmdk", "convert", 5, 10, os.getpid())
        assert status.read(str(tmp_path), ["other"])["tasks"] == []
        shutil.copy(folder / "vmdk_convert-x-0.json", folder / "kept.json")
    dead = json.loads((folder / "kept.json").read_text())
    (folder / "kept.json").write_text(json.dumps({**dead, "start_time": 1}))
    assert status.read(str(tmp_path))["tasks"] == []


def test_a_zombie_does_nothing_any_more(home: Path, tmp_path: Path) -> None:
    folder = home / ".ansible" / "ferry"
    folder.mkdir(parents=True)
    with subprocess.Popen([sys.executable, "-c", "pass"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        facts = {"version": 1, "pid": process.pid, "state": "running", "beat": 1, "disks": {"Hard disk 1": {"state": "running"}}}
        (folder / "vm_disk_copy-x-0.json").write_text(json.dumps(facts))
        assert status.read(str(tmp_path))["tasks"] == []


ODD: list[Any] = [
    None,
    True,
    -1,
    1e400,
    float("nan"),
    10**30,
    "",
    "x" * 5000,
    "\x00\u202e",
    [],
    [[]],
    {},
    {"a": 1},
    {"at": "x", "text": [1], "next": {}},
]
FACTS = ("state", "generation", "completed", "disk", "target", "pass", "reason", "history", "change_id", "digest", noted.OF, noted.ERROR)


@pytest.mark.parametrize("value", ODD, ids=[f"{i}" for i in range(len(ODD))])
def test_facts_that_cannot_be_break_nothing(tmp_path: Path, home: Path, value: Any) -> None:
    """Each fact alone, and all at once; and the same in the status file of who holds it."""
    migration(tmp_path).close()
    whole = next((tmp_path / "ledgers").glob("*.sqlite"))
    for number, names in enumerate([*((n,) for n in FACTS), FACTS]):
        path = whole.with_name(file_name(f"{UUID[:-2]}{number + 16:02x}", "2000", "path:/x"))
        shutil.copy(whole, path)
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("PRAGMA synchronous=OFF")
            for name in names:
                db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, json.dumps(value)))
    folder = home / ".ansible" / "ferry"
    folder.mkdir(parents=True)
    figures = dict.fromkeys(("phase", "done", "total", "rate", "left", "state"), value)
    said = {
        "version": 1,
        "pid": os.getpid(),
        "state": "running",
        "beat": 1,
        "name": value,
        "unit": value,
        "phase": value,
        "disks": {"d": figures},
    }
    (folder / "vm_disk_copy-x-0.json").write_text(json.dumps(said))
    found = status.read(str(tmp_path))
    assert sum(len(m["disks"]) for m in found["migrations"]) == len(FACTS) + 2 and found["problems"] == []
    assert len(found["tasks"]) == 1
    assert len(json.dumps(found, allow_nan=False)) < 400_000
