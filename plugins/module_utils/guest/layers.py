# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Layers over a guest's disks, and the journal by which a killed conversion is undone or finished.

What converts a guest writes to qcow2 layers on the conversion host, never to the disks. Only when all of it has succeeded do the layers go
down into the disks (C(qemu-img commit)), which takes seconds. So a conversion that fails, or is killed, has changed nothing; one that is
killed while its layers go down is finished by the next run, which writes the same blocks once more: layers are not emptied before all are down.

The journal is a file that is replaced and synced: C(converting) (its layers are worth nothing), C(committing) (its layers are whole).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import stat
from types import TracebackType
from typing import Any, Callable, Sequence

from ..errors import Busy, bounded
from . import tools
from .model import Disk, GuestError

CONVERTING, COMMITTING = "converting", "committing"
_JOURNAL = "journal.json"
#: What virt-v2v said the last time; it stays, since it is asked for when the layers are gone.
LOG = "virt-v2v.log"
#: Bytes that have to be free for the layers: a conversion writes some ten MiB for each kernel, and trims.
FREE = 512 << 20
#: Seconds for one layer to go down.
_COMMIT_TIMEOUT = 3600.0


class Layers:
    """The layers of one guest; a context manager that holds the lock of its folder.

    :param folder: where the layers of all guests live, on a file system with room.
    :param name: whose these are: the guest's disks by the names of their targets, which hold in every run.
    """

    def __init__(self, folder: str, name: str) -> None:
        self.folder = os.path.join(folder, re.sub(r"[^A-Za-z0-9._-]", "_", name)[:100])
        self._fd = -1
        self.said: dict[str, Any] = {}

    def __enter__(self) -> Layers:
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        self._fd = os.open(os.path.join(self.folder, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._fd)
            raise Busy(
                "This guest is being converted by another process of this machine.", step="convert the guest", holder=self.folder
            ) from None
        self.said = self._load()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        fd, self._fd = self._fd, -1
        os.close(fd)

    @property
    def phase(self) -> str:
        return str(self.said.get("phase") or "")

    def _load(self) -> dict[str, Any]:
        try:
            with open(os.path.join(self.folder, _JOURNAL), encoding="utf-8") as f:
                found = json.load(f)
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) and found.get("phase") in (CONVERTING, COMMITTING) else {}

    def note(self, phase: str, **facts: Any) -> None:
        """Say durably how far it is."""
        self.said = {**self.said, **facts, "phase": phase}
        path = os.path.join(self.folder, _JOURNAL)
        with open(path + ".new", "w", encoding="utf-8", opener=tools.private) as f:
            json.dump(self.said, f)
            f.flush()
            os.fsync(f.fileno())
        os.replace(path + ".new", path)
        _sync_folder(self.folder)

    def clear(self) -> None:
        """Throw the layers and the journal away. The journal goes last of all that counts: without layers it would be believed."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self.folder, _JOURNAL))
        for name in os.listdir(self.folder):
            if name not in ("lock", LOG):
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(self.folder, name))
        self.said = {}

    @property
    def log(self) -> str:
        return os.path.join(self.folder, LOG)

    def layer(self, number: int) -> str:
        return os.path.join(self.folder, f"disk{number}.qcow2")

    def make(self, disks: Sequence[Disk]) -> list[Disk]:
        """New layers over the disks.

        :raises GuestError: code C(no_space), where the folder has no room.
        """
        self.clear()
        free = shutil.disk_usage(self.folder).free
        if free < FREE:
            raise GuestError(
                f"{self.folder} has {free >> 20} MiB free, for the conversion's layers it needs {FREE >> 20} MiB.",
                code="no_space",
                step="make layers over the disks",
                next_command="free some space there, or name another ledger folder (ferry_ledger)",
            )
        self.note(CONVERTING)
        made = []
        for number, disk in enumerate(disks):
            path = self.layer(number)
            _image(["create", "-q", "-f", "qcow2", "-F", disk.format, "-b", os.path.abspath(disk.path), path], "make layers over the disks")
            os.chmod(path, 0o600)
            made.append(Disk(path, disk.label, "qcow2"))
        return made

    def commit(
        self, disks: Sequence[Disk], *, check: Callable[[], None] = lambda: None, watch: Callable[[int], None] = lambda number: None
    ) -> None:
        """Let the layers go down into the disks, whose paths may be others than when the layers were made. May be done again.

        :param watch: gets the number of each disk before its layer goes down.
        """
        for number, disk in enumerate(disks):
            watch(number)
            path, step = self.layer(number), "write the converted guest to its disks"
            if not os.path.exists(path):
                raise GuestError("A layer of the conversion is gone.", disk=disk.label, step=step, said=path)
            _image(["rebase", "-q", "-u", "-f", "qcow2", "-F", disk.format, "-b", os.path.abspath(disk.path), path], step)
            # -d: the layer stays as it is, so that it can go down again.
            _image(["commit", "-q", "-d", "-f", "qcow2", path], step, check=check)
            _sync(disk.path)


def _image(arguments: Sequence[str], step: str, *, check: Callable[[], None] = lambda: None) -> None:
    done = tools.run(["qemu-img", *arguments], check=check, timeout=_COMMIT_TIMEOUT)
    if done.code != 0:
        raise GuestError(
            "qemu-img could not do it.",
            code="no_space" if "No space" in done.said else "conversion",
            step=step,
            said=bounded(done.said[-500:]),
        )


def _sync(path: str) -> None:
    fd = os.open(path, os.O_RDWR if stat.S_ISBLK(os.stat(path).st_mode) else os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _sync_folder(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
