# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files that appear whole or not at all: a lock, temporary names beside the target, rename, fsync of the folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
from typing import Container, Iterable, Iterator

from ..errors import BadInput, Busy, SinkError
from .structs import MAX_DESCRIPTOR


def flat_name(name: str) -> str:
    """Name of the flat extent that belongs to the descriptor called C(name)."""
    stem = name[:-5] if name.lower().endswith(".vmdk") else name
    return f"{stem}-flat.vmdk"


def own_name(name: str, of: str) -> bool:
    """True where C(name) is one that a data file of the descriptor C(of) has."""
    stem = flat_name(of)[: -len("-flat.vmdk")]
    return bool(re.fullmatch(re.escape(stem) + r"-(flat|[sf][0-9]{3,5})\.vmdk", name))


class Staging:
    """Temporary names for the target C(dest), in its folder. Use it with C(with): what is not published is removed.

    Several files cannot be renamed at once. So a journal beside them names, from before the first rename to after the last
    removal, each data file that is replaced or removed; C(unfinished) has those of a run that was killed in between.
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
        self.unfinished: set[str] = set()
        self._made: list[str] = []
        self._lock = -1
        mask = os.umask(0o077)
        os.umask(mask)
        self._mode = 0o666 & ~mask

    def hidden(self, role: str) -> str:
        """The path of a hidden file beside dest, for C(role)."""
        # A file name has at most 255 bytes.
        name = os.fsdecode(os.fsencode(self.name)[:200])
        return os.path.join(self.folder, f".{name}.ferry-{role}")

    def temporary(self, role: str) -> str:
        """The path of a temporary file that does not exist (left-overs of a killed run are removed)."""
        path = self.hidden(role)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        self._made.append(path)
        return path

    def publish(self, pairs: list[tuple[str, str]], replaced: Iterable[str] | None = None) -> None:
        """Rename each (temporary, name in the folder); the last one is what makes the others count.

        :param replaced: names of data files of the disk that stood here; what of them, and of C(unfinished), is not written anew
            is removed. None: the data files stay as they are, a descriptor alone is replaced.
        """
        names = [name for _temporary, name in pairs]
        data = names[:-1]
        older = () if replaced is None else {*replaced, *self.unfinished}
        stale = {name for name in older if own_name(name, self.name)} - set(names)
        try:
            for temporary, name in pairs:
                mode = self._mode
                with contextlib.suppress(FileNotFoundError):
                    mode = stat.S_IMODE(os.stat(os.path.join(self.folder, name)).st_mode)
                os.chmod(temporary, mode)
            if data or stale:
                self._write_journal([*data, *sorted(stale)])
            if data:
                # An old descriptor must not describe new extents, should we be killed between the renames, nor a new one stand
                # beside extents of the old disk, which look like its own.
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self.dest)
                sync_folder(self.folder)
                self._unlink(stale)
            for temporary, name in pairs:
                os.replace(temporary, os.path.join(self.folder, name))
                self._made.remove(temporary)
            sync_folder(self.folder)
            if replaced is not None:
                self._remove(stale)
        except OSError as e:
            raise SinkError("The finished file cannot be put in its place.", disk=self.dest, step="rename", said=e.strerror) from e

    def tidy(self, used: Iterable[str]) -> None:
        """Remove what a killed run left of an older disk; C(used) are the names that belong to the present one."""
        if self.unfinished and not self._read_only:
            self._remove({name for name in self.unfinished if own_name(name, self.name)} - set(used))
            self.unfinished = set()

    def forget(self, keys: Container[tuple[int, ...]]) -> None:
        """Take files of the source, given by (device, inode), out of C(unfinished): they are not ours to remove."""
        for name in list(self.unfinished):
            with contextlib.suppress(OSError):
                info = os.lstat(os.path.join(self.folder, name))
                if (info.st_dev, info.st_ino) in keys:
                    self.unfinished.discard(name)

    def _remove(self, names: set[str]) -> None:
        """Remove files of an older disk, then the journal that names them."""
        self._unlink(names)
        self._unlink({os.path.basename(self.hidden("journal"))})

    def _unlink(self, names: Iterable[str]) -> None:
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(self.folder, name))

    def _write_journal(self, names: list[str]) -> None:
        path = self.hidden("journal")
        with open(path, "wb") as out:
            out.write(b"".join(os.fsencode(name) + b"\n" for name in names))
            out.flush()
            os.fsync(out.fileno())
        sync_folder(self.folder)

    def _read_journal(self) -> None:
        with contextlib.suppress(OSError):
            fd = os.open(self.hidden("journal"), os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
            with open(fd, "rb") as file:
                names = file.read(MAX_DESCRIPTOR).split(b"\n")
            self.unfinished = {name for name in map(os.fsdecode, names) if own_name(name, self.name)}

    def _clean(self) -> None:
        """Remove the temporary files of a run that was killed."""
        prefix = os.path.basename(self.hidden(""))
        kept = {prefix + "lock", prefix + "journal", prefix + "undo"}
        for name in os.listdir(self.folder):
            if name.startswith(prefix) and name not in kept:
                with contextlib.suppress(FileNotFoundError, IsADirectoryError, PermissionError):
                    os.unlink(os.path.join(self.folder, name))

    def __enter__(self) -> Staging:
        if self._read_only:
            self._read_journal()
            return self
        path = self.hidden("lock")
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
        try:
            self._clean()
            self._read_journal()
        except OSError as e:
            self.__exit__()
            raise SinkError("The folder of dest cannot be read.", disk=self.dest, step="lock dest", said=e.strerror) from e
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
