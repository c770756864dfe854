# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The journal of an evacuation: what was begun, under which task, and how it ended, so that a run that was killed can be gone on with.

A text file, 0600. Each line is C(CRC32 JSON), the CRC as eight hexadecimal digits over the bytes of the JSON, and is on the disk before
what it tells of is done. The first line says what the journal is of. A line without an end at the end of the file is what a kill leaves, and is
dropped; any other line that does not agree with its CRC is damage, and an error. One writer at a time: flock.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
import zlib
from dataclasses import dataclass, field
from typing import Any, Mapping

from ..errors import BadInput, Busy, SinkError, bounded

STEP = "read the journal"
VERSION = 1
#: Bytes of a journal that are read; a line has about 300.
MOST = 1 << 30

#: What the last line of a VM may say.
BEGUN, TASK, MOVED, FAILED, LATER = "begin", "task", "moved", "failed", "later"


@dataclass
class State:
    """What the journal tells of one VM. C(target): vCenter and MoRef."""

    event: str
    name: str
    target: tuple[str, str]
    task: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def open(self) -> bool:
        """Whether a relocation may be under way."""
        return self.event in (BEGUN, TASK)


@dataclass
class History:
    """What a journal holds. C(size): bytes up to the end of the last whole line."""

    head: Mapping[str, Any] | None = None
    vms: dict[str, State] = field(default_factory=dict)
    canary_done: bool = False
    measured: list[tuple[int, float, bool]] = field(default_factory=list)
    size: int = 0


def default_path(datastore_uuid: str) -> str:
    """Where the journal of a datastore's evacuation is unless told otherwise."""
    home = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return os.path.join(home, "ferry", f"vcd-evacuate-{datastore_uuid}.jsonl")


def line_of(record: Mapping[str, Any]) -> bytes:
    """A record as a line."""
    body = json.dumps(record, sort_keys=True, ensure_ascii=True, separators=(",", ":")).encode("ascii")
    return b"%08x %s\n" % (zlib.crc32(body), body)


def _damaged(path: str, number: int, offset: int, why: str) -> BadInput:
    return BadInput(
        f"The journal {path} is damaged: line {number}, byte {offset}: {why}.",
        code="journal_damaged",
        step=STEP,
        next_command="move it out of the way and run again: what is under way is found on the server, and nothing is moved twice",
    )


def history_of(data: bytes, path: str) -> History:
    """What the bytes of a journal tell.

    :raises BadInput: code C(journal_damaged), with line and byte; code C(journal_foreign): it is no journal of an evacuation.
    """
    found = History()
    offset, number = 0, 0
    while offset < len(data):
        end = data.find(b"\n", offset)
        if end < 0:
            break
        number += 1
        body = data[offset + 9 : end]
        if number == 1 and data[offset + 8 : offset + 9] != b" ":
            raise BadInput(f"{path} is not the journal of an evacuation.", code="journal_foreign", step=STEP)
        if data[offset : offset + 9] != b"%08x " % zlib.crc32(body):
            raise _damaged(path, number, offset, "its checksum does not fit")
        try:
            record = json.loads(body)
        except (ValueError, RecursionError) as e:
            raise _damaged(path, number, offset, str(e)) from e
        if not isinstance(record, dict):
            raise _damaged(path, number, offset, "no record")
        try:
            _take(found, record, number)
        except (KeyError, TypeError, ValueError) as e:
            raise _damaged(path, number, offset, f"a record that is not known ({e})") from e
        offset = end + 1
        found.size = offset
    return found


def _take(found: History, record: dict[str, Any], number: int) -> None:
    event = record["event"]
    if number == 1:
        if event != "evacuation" or record["version"] != VERSION:
            raise ValueError("another kind or version")
        found.head = record
    elif event in (BEGUN, TASK, MOVED, FAILED, LATER):
        vc, moref = record["target"]
        old = found.vms.get(record["vm"])
        task = record.get("task") or (old.task if old is not None and event == MOVED else None)
        found.vms[str(record["vm"])] = State(event, str(record["name"]), (str(vc), str(moref)), task, record)
        if event == MOVED and record.get("seconds") is not None:
            found.measured.append((int(record["mb"]), float(record["seconds"]), bool(record.get("clone"))))
    elif event == "canary":
        found.canary_done = True


def check_same(found: History, head: Mapping[str, Any], path: str) -> None:
    """Raise BadInput (code C(journal_foreign)) where the journal is of another datastore or vCloud Director than C(head) says."""
    if found.head is None:
        return
    for key in ("source", "vcenter", "moref"):
        if found.head.get(key) != head.get(key):
            raise BadInput(
                f"The journal {path} is of another evacuation, that of {bounded(found.head.get('name') or '?', 120)} on "
                f"{bounded(found.head.get('host') or '?', 120)}.",
                code="journal_foreign",
                step=STEP,
                next_command="give this evacuation a journal of its own",
            )


def read_history(path: str, head: Mapping[str, Any]) -> History:
    """What a journal tells, without touching it; nothing where there is none."""
    try:
        with open(path, "rb") as stream:
            found = history_of(stream.read(MOST), path)
    except FileNotFoundError:
        return History()
    except OSError as e:
        raise BadInput(f"The journal {path} cannot be read.", code="journal_unreadable", step=STEP, said=e) from e
    check_same(found, head, path)
    return found


class Journal:
    """The journal at C(path), held by this process; a context manager.

    :param head: what the evacuation is of: source (UUID), vcenter, moref, name, host.
    :raises Busy: another process has it.
    :raises BadInput: codes of history_of() and check_same(), and C(journal_unreadable).
    """

    def __init__(self, path: str, head: Mapping[str, Any]) -> None:
        self.path = path
        self._fd = self._open()
        try:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as e:
                raise Busy(
                    f"Another run holds the journal {path}: the datastore is being emptied already.",
                    code="journal_busy",
                    step=STEP,
                    said=e,
                    next_command="wait for that run, or stop it; the same command then goes on",
                ) from e
            if not stat.S_ISREG(os.fstat(self._fd).st_mode):
                raise BadInput(f"The journal {path} is no file.", code="journal_unreadable", step=STEP)
            os.lseek(self._fd, 0, os.SEEK_SET)
            with os.fdopen(os.dup(self._fd), "rb") as stream:
                self.history = history_of(stream.read(MOST), path)
            check_same(self.history, head, path)
            os.fchmod(self._fd, 0o600)
            self._end = self.history.size
            self._cut()
            if self.history.head is None:
                self._write({"event": "evacuation", "version": VERSION, **head})
                self._sync_folder()
        except BaseException:
            os.close(self._fd)
            raise

    def _open(self) -> int:
        folder = os.path.dirname(os.path.abspath(self.path))
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
        except OSError as e:
            why = "is a symbolic link" if e.errno == errno.ELOOP else "cannot be written"
            raise BadInput(f"The journal {self.path} {why}.", code="journal_unreadable", step=STEP, said=e) from e

    def _sync_folder(self) -> None:
        fd = os.open(os.path.dirname(os.path.abspath(self.path)), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def _write(self, record: Mapping[str, Any]) -> None:
        data = line_of(record)
        try:
            written = os.write(self._fd, data)
            if written != len(data):
                raise OSError(errno.ENOSPC, f"{written} of {len(data)} bytes were written")
            os.fsync(self._fd)
            self._end += written
        except OSError as e:
            self._cut()
            raise SinkError(
                f"The journal {self.path} cannot be written, and nothing is begun without it.",
                step="write the journal",
                said=e,
                left="relocations that are under way, which go on",
                next_command="make room on the journal's file system and run the same again: it joins them",
            ) from e

    def _cut(self) -> None:
        """Take away what is behind the last whole line."""
        os.ftruncate(self._fd, self._end)
        os.lseek(self._fd, 0, os.SEEK_END)

    def note(self, event: str, vm: str, name: str, target: tuple[str, str], **facts: Any) -> None:
        """Something about the VM with the UUID C(vm); on the disk when this returns.

        :raises SinkError: it cannot be written.
        """
        record = {"event": event, "vm": vm, "name": bounded(name, 200), "target": list(target), **facts}
        self._write(record)
        _take(self.history, record, 2)

    def canary_passed(self) -> None:
        """The canary has succeeded, and need not be sent again."""
        if not self.history.canary_done:
            self._write({"event": "canary"})
            self.history.canary_done = True

    def close(self) -> None:
        """Give the lock back."""
        os.close(self._fd)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
