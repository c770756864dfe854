# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files behind a VMDK: opened without following anything out of the descriptor's folder, read exactly or not at all."""

from __future__ import annotations

import errno
import functools
import os
import re
import resource
import stat
from typing import Iterable

from ..errors import VmdkError, bounded
from ..model import SECTOR

#: Code of the error about a file that a descriptor names and that is not there.
MISSING = "vmdk_missing"
_DRIVE = re.compile(r"^[A-Za-z]:")
_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+:")


def _open(path: str, resolved: bool) -> int:
    # O_NONBLOCK: opening a FIFO or a tape must not hang before fstat tells what it is.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY | (os.O_NOFOLLOW if resolved else 0)
    try:
        return os.open(path, flags)
    except OSError as e:
        if e.errno != errno.EMFILE or not more_files():
            raise
        return os.open(path, flags)


def more_files() -> bool:
    """Let this process have as many open files as it may: a disk of 5 TiB in pieces of 2 GiB has 2,560. True where that changed it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return False
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return True


class RawFile:
    """A regular file (or an allowed block device) opened for positional reads; safe for several threads."""

    #: True for a block device. C(regular) is false for what lies inside of other files, too.
    device = False

    def __init__(self, path: str, *, device_ok: bool = False, what: str = "file", resolved: bool = False) -> None:
        """Open C(path); where it is C(resolved), a link that took its place meanwhile is refused."""
        self.path = path
        self._fd = -1
        try:
            self._fd = _open(path, resolved)
            info = os.fstat(self._fd)
            if stat.S_ISREG(info.st_mode):
                self.size = info.st_size
            elif device_ok and stat.S_ISBLK(info.st_mode):
                self.size = os.lseek(self._fd, 0, os.SEEK_END)
            else:
                raise VmdkError(f"The {what} is not a regular file.", path=path, found=oct(stat.S_IFMT(info.st_mode)))
        except OSError as e:
            self.close()
            raise VmdkError(f"The {what} cannot be opened.", path=path, said=e.strerror) from e
        except ValueError as e:
            raise VmdkError(f"The {what} has an impossible name.", path=path, said=e) from e
        except VmdkError:
            self.close()
            raise
        self.regular = stat.S_ISREG(info.st_mode)
        self.device = not self.regular
        #: What makes it this file and no other; device and inode.
        self.key = (info.st_dev, info.st_ino)
        self.allocated = info.st_blocks * SECTOR if self.regular else self.size
        self.identity = f"{info.st_dev}:{info.st_ino}:{self.size}:{info.st_mtime_ns if self.regular else 0}"

    @property
    def fd(self) -> int:
        """For lseek(2), where C(regular) is true; else positions in it may be others (a member of an archive)."""
        return self._fd

    def changed(self) -> bool:
        """True where the file is not what it was when it was opened."""
        info = os.fstat(self._fd)
        return self.regular and self.identity != f"{info.st_dev}:{info.st_ino}:{info.st_size}:{info.st_mtime_ns}"

    def read(self, offset: int, length: int, what: str = "data") -> bytes:
        """Exactly C(length) bytes from C(offset), or VmdkError: what lies past the end of the file is never data."""
        self._inside(offset, length, what)
        parts: list[bytes] = []
        at, left = offset, length
        while left:
            try:
                part = os.pread(self._fd, left, at)
            except OSError as e:
                raise VmdkError(f"The {what} cannot be read.", path=self.path, offset=at, said=e.strerror) from e
            if not part:
                raise VmdkError(f"The file was cut while its {what} was read.", path=self.path, offset=at)
            parts.append(part)
            at += len(part)
            left -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read_into(self, offset: int, view: memoryview, what: str = "data") -> None:
        """As C(read), into C(view): no new memory for each call."""
        if self._fd < 0:  # a file inside of others reads itself in its own way
            view[:] = self.read(offset, len(view), what)
            return
        self._inside(offset, len(view), what)
        while view:
            try:
                count = os.preadv(self._fd, [view], offset)
            except OSError as e:
                raise VmdkError(f"The {what} cannot be read.", path=self.path, offset=offset, said=e.strerror) from e
            if not count:
                raise VmdkError(f"The file was cut while its {what} was read.", path=self.path, offset=offset)
            view = view[count:]
            offset += count

    def _inside(self, offset: int, length: int, what: str) -> None:
        if offset < 0 or offset + length > self.size:
            raise VmdkError(
                f"The {what} reaches past the end of the file: it is cut, or points to the wrong place.",
                path=self.path,
                offset=offset,
                found=f"{self.size} bytes in the file",
                expected=f"{offset + length}",
            )

    def origins(self) -> list[RawFile]:
        """The files on disk that it is made of."""
        return [self]

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def refuse_name(name: str, path: str, *, undecoded: bool = False) -> None:
    """Raise VmdkError where the extent or parent name C(name) of the descriptor C(path) may not be opened, whatever it is.

    :param undecoded: the bytes of a name in an encoding where a backslash may be the second half of a character.
    """
    why = None
    if not name or "\0" in name:
        why = "an empty name"
    elif name.startswith("/"):
        why = "an absolute path"
    elif _DRIVE.match(name):
        why = "a drive letter"
    elif _SCHEME.match(name):
        why = "an URL or a pseudo-protocol"
    elif "\\" in name and not undecoded:
        why = "a path with backslashes"
    elif ".." in name.split("/"):
        why = "a path that leads upwards"
    elif len(os.fsencode(name)) > 4096:
        why = "a name that is too long"
    if why:
        raise VmdkError(
            f"The descriptor names {why}; it is not opened.", path=path, found=name, expected="a file in the descriptor's folder"
        )


class Folder:
    """The folder of a descriptor, and what may be opened from there."""

    def __init__(self, head: str, allow: Iterable[str] = ()) -> None:
        self.head = head
        self._allow = [os.path.realpath(a) for a in allow]

    @functools.cached_property
    def root(self) -> str:
        """The folder, links resolved."""
        return os.path.dirname(os.path.realpath(self.head))

    def at(self, file: RawFile) -> Folder:
        """The folder of another descriptor, C(file), with the same exceptions."""
        return Folder(file.path, self._allow)

    def _allowed(self, real: str) -> bool:
        return any(real == a or real.startswith(a.rstrip("/") + "/") for a in self._allow)

    def has(self, name: str) -> bool:
        """True where the plain name C(name) is there; nothing is opened."""
        return "/" not in name and "\0" not in name and os.path.lexists(os.path.join(self.root, name))

    def open(self, names: list[str], what: str = "extent") -> RawFile:
        """Open the one existing file among C(names) (spellings of one name); VmdkError where none or two exist."""
        found: list[str] = []
        for name in (spellings := list(dict.fromkeys(names))):
            wanted = os.path.join(self.root, name) if name and "\0" not in name else ""
            listed = bool(wanted) and self._allowed(os.path.realpath(wanted))
            if not listed:
                refuse_name(name, self.head, undecoded=name != spellings[-1])
            if os.path.lexists(wanted):
                found.append(wanted)
        if not found:
            message = f"The {what} that the descriptor names is missing."
            raise VmdkError(message, path=self.head, found=bounded(names[0], 120), code=MISSING)
        if len({os.path.realpath(f) for f in found}) > 1:
            raise VmdkError(f"The {what}'s name fits two files, by its encoding.", path=self.head, found=bounded(names[0], 120))
        real = os.path.realpath(found[0])
        listed = self._allowed(real)
        if not listed and os.path.dirname(real) != self.root and not real.startswith(self.root.rstrip("/") + "/"):
            raise VmdkError(
                f"The {what} is a link out of the descriptor's folder; it is not opened.", path=self.head, found=bounded(names[0], 120)
            )
        return RawFile(real, device_ok=listed, what=what, resolved=True)
