# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files that appear whole or not at all: a lock, temporary names beside the target, rename, fsync of the folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from typing import Iterator

from ..errors import BadInput, Busy, SinkError


def flat_name(name: str) -> str:
    """Name of the flat extent that belongs to the descriptor called C(name)."""
    stem = name[:-5] if name.lower().endswith(".vmdk") else name
    return f"{stem}-flat.vmdk"


class Staging:
    """Temporary names for the target C(dest), in its folder. Use it with C(with): what is not published is removed.

    With C(read_only) nothing is locked, and no temporary file may be made.
    """

    def __init__(self, dest: str, *, read_only: bool = False) -> None:
        self.dest = os.path.realpath(dest)
        self.folder, self.name = os.path.split(self.dest)
        self._read_only = read_only
        # In check mode the folder may be one that an earlier task would have made.
        if not read_only and not os.path.isdir(self.folder):
            raise BadInput("The folder of dest does not exist.", disk=dest)
        try:
            if os.path.lexists(self.dest) and not stat.S_ISREG(os.stat(self.dest).st_mode):
                raise BadInput("dest exists and is not a regular file.", disk=dest)
        except OSError as e:
            raise BadInput("dest cannot be looked at.", disk=dest, said=e.strerror) from e
        self._made: list[str] = []
        self._lock = -1
        mask = os.umask(0o077)
        os.umask(mask)
        self._mode = 0o666 & ~mask

    def _hidden(self, role: str) -> str:
        # A file name has at most 255 bytes.
        name = os.fsdecode(os.fsencode(self.name)[:200])
        return os.path.join(self.folder, f".{name}.ferry-{role}")

    def temporary(self, role: str) -> str:
        """The path of a temporary file that does not exist (left-overs of a killed run are removed)."""
        path = self._hidden(role)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        self._made.append(path)
        return path

    def publish(self, pairs: list[tuple[str, str]]) -> None:
        """Rename each (temporary, name in the folder); the last one is what makes the others count."""
        final = [os.path.join(self.folder, name) for _temporary, name in pairs]
        try:
            for temporary, path in zip((t for t, _name in pairs), final, strict=True):
                mode = self._mode
                with contextlib.suppress(FileNotFoundError):
                    mode = stat.S_IMODE(os.stat(path).st_mode)
                os.chmod(temporary, mode)
            if len(pairs) > 1:
                # An old descriptor must not describe new extents, should we be killed between the renames.
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(final[-1])
            for (temporary, _name), path in zip(pairs, final, strict=True):
                os.replace(temporary, path)
                self._made.remove(temporary)
            sync_folder(self.folder)
        except OSError as e:
            raise SinkError("The finished file cannot be put in its place.", disk=self.dest, step="rename", said=e.strerror) from e

    def __enter__(self) -> Staging:
        if self._read_only:
            return self
        path = self._hidden("lock")
        try:
            while self._lock < 0:
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    # The holder before us removes the file when done: what we hold must still be what the name means.
                    with contextlib.suppress(FileNotFoundError):
                        if os.fstat(fd).st_ino == os.stat(path).st_ino:
                            self._lock = fd
                finally:
                    if self._lock != fd:
                        os.close(fd)
        except BlockingIOError as e:
            raise Busy("Another conversion writes this file.", disk=self.dest) from e
        except OSError as e:
            raise SinkError("The folder of dest cannot be written.", disk=self.dest, step="lock dest", said=e.strerror) from e
        self._lock_path = path
        return self

    def __exit__(self, *args: object) -> None:
        if self._read_only:
            return
        for path in self._made:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._lock_path)
        os.close(self._lock)
        self._lock = -1


def sync_folder(path: str) -> None:
    """fsync(2) of a folder: renames in it are durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def removing(path: str) -> Iterator[str]:
    """Remove the file C(path) at the end."""
    try:
        yield path
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
