# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a conversion host keeps of its copies: measurements, and what its ledgers say, read without their lease."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
from pathlib import Path

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk import copy as engine
from ansible_collections.ferry.vmware.plugins.module_utils.disk import ledger as ledgers
from ansible_collections.ferry.vmware.plugins.module_utils.disk.sinks.file import FileSink
from ansible_collections.ferry.vmware.plugins.module_utils.disk.sources.file import FileSource
from ansible_collections.ferry.vmware.plugins.module_utils.transfer import disk_copy, kept, throughput

MIB = 1 << 20
VM = "50210a1b-0000-4c6e-9f01-000000000001"


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "kept" / "throughput.json")


def test_an_average_moves_towards_what_is_measured(path: str) -> None:
    assert throughput.note(path, "https", 100 * MIB, 1.0, "ESX1")
    assert throughput.note(path, "https", 200 * MIB, 1.0)
    found = throughput.load(path)["transports"]["https"]
    assert found["rate"] == round(130 * MIB) and found["count"] == 2
    assert found["hosts"]["esx1"]["rate"] == 100 * MIB and found["hosts"]["esx1"]["count"] == 1
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_steps(path: str) -> None:
    assert throughput.note_steps(path, [("land", 10.0), ("land", 20.0), ("x" * 41, 1.0), ("bad", float("nan")), ("late", 1e9)])
    assert list(throughput.load(path)["steps"]) == ["land"] and throughput.load(path)["steps"]["land"]["seconds"] == 13.0
    assert not throughput.note_steps(path, [])


def test_too_little_tells_nothing(path: str) -> None:
    assert not throughput.note(path, "https", MIB - 1, 1.0) and not throughput.note(path, "https", MIB, 0.0)
    assert not os.path.exists(path)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"version": 9, "transports": {"https": {"rate": 1}}}',
        '{"version": 1, "transports": {"https": {"rate": "fast"}, "nfc": {"rate": -1}, "nbd": 7, "file": {"rate": NaN}}, "steps": []}',
        "[" * 200_000,
    ],
)
def test_what_is_damaged_counts_as_nothing_and_is_replaced(path: str, content: str) -> None:
    os.makedirs(os.path.dirname(path))
    Path(path).write_text(content)
    assert throughput.load(path) == {"version": 1, "transports": {}, "steps": {}}
    assert throughput.note(path, "https", 5 * MIB, 1.0) and list(throughput.load(path)["transports"]) == ["https"]


def test_where_nothing_can_be_written_nothing_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    below = str(tmp_path / "file" / "throughput.json")
    assert not throughput.note(below, "https", MIB, 1.0) and not throughput.note_steps(below, [("land", 1.0)])


def test_many_at_once_lose_none(path: str) -> None:
    threads = [threading.Thread(target=throughput.note, args=(path, "https", 10 * MIB, 1.0, f"esx{n}")) for n in range(20)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    found = throughput.load(path)["transports"]["https"]
    assert found["count"] == 20 and len(found["hosts"]) == 20
    assert sorted(os.listdir(os.path.dirname(path))) == ["throughput.json", "throughput.json.lock"]


def test_the_place_is_beside_the_ledgers_or_in_the_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ops")
    assert throughput.place("/var/lib/ferry") == "/var/lib/ferry/throughput.json"
    assert throughput.place(None) == "/home/ops/.ansible/ferry/throughput.json"


def test_a_copy_keeps_how_fast_it_was(tmp_path: Path) -> None:
    source = tmp_path / "disk.raw"
    source.write_bytes(os.urandom(8 * MIB))
    params = {
        "source": str(source),
        "disks": [{"dest": {"path": str(tmp_path / "copy.raw")}}],
        "ledger": str(tmp_path / "ferry"),
        "workers": 2,
        "verify": "full",
        "mode": "auto",
        "transport": "auto",
        "chunk_size": 8 * MIB,
        "patience": 1,
    }
    assert disk_copy.run(params)["changed"]
    found = kept.read(str(tmp_path / "ferry"), None)
    assert found["throughput"]["transports"]["file"]["count"] == 1 and found["throughput"]["transports"]["file"]["rate"] > 0
    (row,) = found["disks"]
    assert row["state"] == "complete" and row["left"] == 0 and row["capacity"] == 8 * MIB
    assert [h["mode"] for h in row["history"]] == ["full"] and row["history"][0]["read"] == 8 * MIB
    assert not disk_copy.run(params)["changed"]
    again = kept.read(str(tmp_path / "ferry"), None)["disks"][0]
    assert again["history"] == row["history"]


def half_copied(folder: Path, name: str = VM) -> Path:
    """A ledger of a copy that was cut off: 3 of 10 MiB are there."""
    source = folder / "s.raw"
    source.write_bytes(os.urandom(10 * MIB))
    path = folder / "ledgers" / ledgers.file_name(name, "2000", "volume:v1")
    with contextlib.closing(FileSource(str(source))) as src, contextlib.closing(FileSink(str(folder / "t.raw"), 10 * MIB)) as sink:
        ledger = ledgers.Ledger(str(path), 10 * MIB)
        job = engine.Job("Hard disk 1", src, sink, ledger, unit=MIB)
        job.prepare()
        for chunk in range(3):
            ledger.mark(chunk, bytes([ledgers.DATA]), bytes(16))
        sink.flush()
        ledger.commit(ledger.position())
        ledger.close()
    return path


def test_a_copy_that_was_cut_off_says_what_is_left(tmp_path: Path) -> None:
    half_copied(tmp_path)
    (row,) = kept.read(str(tmp_path), [VM.upper()])["disks"]
    assert (row["source"], row["disk"], row["state"], row["left"]) == (VM, "2000", "copying", 7 * MIB)
    assert kept.read(str(tmp_path), ["another"])["disks"] == []


def test_a_ledger_that_is_held_is_read_and_left_alone(tmp_path: Path) -> None:
    path = half_copied(tmp_path)
    ledger = ledgers.Ledger(str(path), 10 * MIB)
    try:
        assert len(kept.read(str(tmp_path), None)["disks"]) == 1
        ledger.set(mine=1)
    finally:
        ledger.close()


def test_ledgers_that_cannot_be_read_are_remarks(tmp_path: Path) -> None:
    half_copied(tmp_path)
    folder = tmp_path / "ledgers"
    (folder / ledgers.file_name("broken", "2000", "x")).write_bytes(b"no database" * 100)
    newer = folder / ledgers.file_name("newer", "2000", "x")
    with sqlite3.connect(newer) as db:
        db.execute("PRAGMA user_version=99")
    (folder / "other file").write_text("x")
    (tmp_path / "budget.json").write_text("{")
    found = kept.read(str(tmp_path), None)
    assert len(found["disks"]) == 1 and len(found["remarks"]) == 3
    assert any("version 99" in r for r in found["remarks"]) and found["budget"] == {"overall": None, "hosts": {}, "datastores": {}}


def test_nothing_there_is_nothing(tmp_path: Path) -> None:
    found = kept.read(str(tmp_path / "none"), None)
    assert found["disks"] == [] and found["remarks"] == [] and not (tmp_path / "none").exists()
    assert json.dumps(found)


def migration(**more: object) -> dict[str, object]:
    phases = [("prepare", 0, 4), ("copy", 4, 30), ("land", 30, 41), ("ready", 41, 43), ("note", 43, 44.5)]
    facts = {"state": "migrated", "strategy": "cold", "disks": [{"seconds": 12.0}, {"seconds": 20.0}], "cycles": [], "downtime": None}
    return {**facts, "phases": [{"name": n, "began": b, "ended": e} for n, b, e in phases], **more}


def test_what_a_migration_tells_of_its_steps() -> None:
    steps = {"prepare": 4, "copy": 6, "land": 11, "ready": 2, "note": 1.5}
    assert dict(throughput.steps_of(migration())) == steps
    assert dict(throughput.steps_of(migration(downtime={"shutdown": 1, "copy": 20}))) == steps


def test_what_a_warm_one_tells() -> None:
    cycles = [{"seconds": 30, "copy_seconds": 24, "throughput": 10**8}, {"seconds": 9, "copy_seconds": 1, "throughput": 10**7}]
    away = {"seconds": 40, "shutdown": 5, "copy": 12, "changed_bytes": 2 * 10**7}
    found = dict(throughput.steps_of(migration(strategy="warm", cycles=cycles, downtime=away)))
    assert found["cycle"] == 7 and found["cutover"] == 15 and "copy" not in found


@pytest.mark.parametrize(
    "more",
    [
        {"state": "failed"},
        {"state": "unchanged"},
        {"disks": [{"seconds": 1, "bytes_resumed": 5}]},
        {"phases": None, "disks": None, "cycles": "x", "downtime": 3},
        {"phases": [{"name": "land", "began": "?", "ended": None}, 7]},
    ],
)
def test_what_did_not_go_from_its_beginning_to_its_end_tells_nothing(more: dict[str, object]) -> None:
    assert throughput.steps_of(migration(**more)) == []
