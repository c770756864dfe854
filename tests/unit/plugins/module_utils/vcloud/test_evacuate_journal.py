# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The journal of an evacuation: whatever is cut off, flipped or foreign is told apart."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput, Busy
from ansible_collections.ferry.vmware.plugins.module_utils.vcloud import evacuate_journal as journal

HEAD = {"source": "1111", "vcenter": "3333", "moref": "datastore-41", "name": "Production-1", "host": "vcd.example"}
TARGET = ("3333", "datastore-42")


def written(path: Path) -> bytes:
    with journal.Journal(str(path), HEAD) as book:
        book.note(journal.BEGUN, "a", "web01", TARGET)
        book.note(journal.TASK, "a", "web01", TARGET, task="https://vcd.example/api/task/1")
        book.note(journal.MOVED, "a", "web01", TARGET, mb=100, seconds=2.5, clone=True)
        book.canary_passed()
        book.canary_passed()
        book.note(journal.BEGUN, "b", "在庫", TARGET)
        book.note(journal.TASK, "b", "在庫", TARGET, task="https://vcd.example/api/task/2")
    return path.read_bytes()


def test_what_is_written_is_read(tmp_path: Path) -> None:
    data = written(tmp_path / "j")
    found = journal.history_of(data, "j")
    assert found.head == {"event": "evacuation", "version": 1, **HEAD}
    assert (found.canary_done, found.measured, found.size) == (True, [(100, 2.5, True)], len(data))
    assert (found.vms["a"].event, found.vms["a"].open, found.vms["a"].task) == ("moved", False, "https://vcd.example/api/task/1")
    assert (found.vms["b"].open, found.vms["b"].name, found.vms["b"].target) == (True, "在庫", TARGET)
    assert data.count(b'"canary"') == 1
    assert (tmp_path / "j").stat().st_mode & 0o777 == 0o600


def test_cut_anywhere_it_is_readable_and_goes_on(tmp_path: Path) -> None:
    data = written(tmp_path / "j")
    whole = {0, *(i + 1 for i, c in enumerate(data) if c == 10)}
    for end in range(len(data) + 1):
        found = journal.history_of(data[:end], "j")
        assert found.size == max(w for w in whole if w <= end)
    for end in (0, 5, 100, len(data) - 3):
        path = tmp_path / f"cut{end}"
        path.write_bytes(data[:end])
        with journal.Journal(str(path), HEAD) as book:
            book.note(journal.BEGUN, "c", "web03", TARGET)
        assert journal.history_of(path.read_bytes(), "j").vms["c"].open


def test_any_flipped_bit_is_found(tmp_path: Path) -> None:
    data = written(tmp_path / "j")
    last = data.rindex(b"\n", 0, len(data) - 1)
    for place in range(last):
        bad = bytearray(data)
        bad[place] ^= 0x04
        with pytest.raises(BadInput) as e:
            journal.history_of(bytes(bad), "the-journal")
        assert e.value.code in ("journal_damaged", "journal_foreign")
        assert "the-journal" in e.value.message


def test_records_that_are_not_known() -> None:
    head = journal.line_of({"event": "evacuation", "version": 1, **HEAD})
    for record in ({"event": "begin"}, {"event": "begin", "vm": "a", "name": "x", "target": 3}, {}):
        with pytest.raises(BadInput, match="line 2"):
            journal.history_of(head + journal.line_of(record), "j")
    with pytest.raises(BadInput, match="line 1"):
        journal.history_of(journal.line_of({"event": "evacuation", "version": 2, **HEAD}), "j")
    for text in (b"- hosts: all\n", b"\n", b"\0" * 100 + b"\n"):
        with pytest.raises(BadInput):
            journal.history_of(text, "j")


def test_one_writer(tmp_path: Path) -> None:
    path = str(tmp_path / "j")
    with journal.Journal(path, HEAD):
        with pytest.raises(Busy):
            journal.Journal(path, HEAD)
        assert journal.read_history(path, HEAD).vms == {}
    journal.Journal(path, HEAD).close()


@pytest.mark.parametrize("change", [{"source": "2222"}, {"vcenter": "4444"}, {"moref": "datastore-1"}])
def test_another_evacuation(tmp_path: Path, change: dict[str, Any]) -> None:
    before = written(tmp_path / "j")
    for read in (journal.Journal, journal.read_history):
        with pytest.raises(BadInput) as e:
            read(str(tmp_path / "j"), {**HEAD, **change})
        assert e.value.code == "journal_foreign"
    assert (tmp_path / "j").read_bytes() == before


def test_places_where_no_journal_can_be(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "other")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe", "."):
        with pytest.raises(BadInput) as e:
            journal.Journal(str(tmp_path / name), HEAD)
        assert e.value.code == "journal_unreadable"
    assert not (tmp_path / "other").exists()
    with journal.Journal(str(tmp_path / "new" / "deep" / "j"), HEAD):
        assert (tmp_path / "new" / "deep").stat().st_mode & 0o077 == 0


def test_where_it_is_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/var/lib/x")
    assert journal.default_path("1111") == "/var/lib/x/ferry/vcd-evacuate-1111.jsonl"
