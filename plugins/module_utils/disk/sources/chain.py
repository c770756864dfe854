# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A frozen chain of deltas on a datastore, read over HTTPS by the codec: COWD and seSparse deltas over a flat base.

Which file is whose parent is vCenter's word (the backing's chain); that it is the right one is told by the CIDs. The name in a
delta's parentFileNameHint may lead into another folder or datastore (linked clones): it is compared, never followed.
"""

from __future__ import annotations

import functools
import hashlib
import posixpath
import threading
from collections import OrderedDict
from typing import Callable, Iterator, Sequence

from ..errors import VmdkError, bounded
from ..model import Extent
from ..vmdk.files import MISSING, Folder, RawFile, refuse_name
from ..vmdk.reader import Disk, open_from
from .https import RemoteFile

#: A read shorter than this is served from a block of this size (bytes): tables and scattered grains lie together.
_BLOCK = 256 << 10
#: Bytes of blocks that all files of a chain keep together.
_CACHED = 32 << 20


def _split(path: str) -> tuple[str, str]:
    """(folder, name) of the datastore path C(path); the folder with what separates them."""
    cut = max(path.rfind("/"), path.rfind("] ") + 1) + 1
    return path[:cut], path[cut:]


class Cache:
    """Blocks of files, the least used one leaves. A block is fetched once, also where several threads want it."""

    def __init__(self, limit: int = _CACHED) -> None:
        self._limit = limit
        self._blocks: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()
        self._fetching: dict[tuple[int, int], threading.Lock] = {}

    def get(self, key: tuple[int, int], fetch: Callable[[], bytes | bytearray]) -> bytes:
        with self._lock:
            found = self._blocks.get(key)
            if found is not None:
                self._blocks.move_to_end(key)
                return found
            mine = self._fetching.setdefault(key, threading.Lock())
        with mine:
            with self._lock:
                found = self._blocks.get(key)
            if found is None:
                found = bytes(fetch())
                with self._lock:
                    self._blocks[key] = found
                    self._size += len(found)
                    while self._size > self._limit and len(self._blocks) > 1:
                        self._size -= len(self._blocks.popitem(last=False)[1])
        with self._lock:
            self._fetching.pop(key, None)
        return found


class RemoteRaw(RawFile):
    """A file on a datastore for the codec: what is read belongs to the state of the file at its opening, or is an error."""

    def __init__(self, remote: RemoteFile, path: str, cache: Cache) -> None:
        self._fd = -1
        self._remote = remote
        self._cache = cache
        self.path = path
        self.regular = False
        self.size, self._tag = remote.head()
        self.allocated = self.size
        name = hashlib.sha256(remote.url.encode()).digest()
        #: In place of device and inode.
        self.key = (int.from_bytes(name[:8], "big"), int.from_bytes(name[8:16], "big"))
        self.identity = f"{remote.url}:{self.size}:{remote.state}"

    def changed(self) -> bool:
        return self._remote.head() != (self.size, self._tag)

    def read(self, offset: int, length: int, what: str = "data") -> bytes:
        self._inside(offset, length, what)
        if not length:
            return b""
        first, last = offset // _BLOCK, (offset + length - 1) // _BLOCK
        if length >= _BLOCK // 2 or last > first + 1:
            return self._remote.read(offset, length)  # type: ignore[return-value]  # a bytearray reads like bytes
        pieces = []
        for number in range(first, last + 1):
            block = self._cache.get((self.key[0], number), functools.partial(self._fetch, number * _BLOCK))
            begin = max(offset - number * _BLOCK, 0)
            pieces.append(block[begin : min(offset + length - number * _BLOCK, _BLOCK)])
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _fetch(self, at: int) -> bytearray:
        return self._remote.read(at, min(_BLOCK, self.size - at))

    def close(self) -> None:
        self._remote.close()


class RemoteFolder(Folder):
    """The folder of one descriptor of a chain.

    :param chain: datastore paths from the disk to its base, as vCenter has them; C(number) is this descriptor's place in it.
    :param open_file: opens a datastore path.
    """

    def __init__(self, chain: Sequence[str], number: int, open_file: Callable[[str], RemoteFile], cache: Cache) -> None:
        self.head = chain[number]
        self._chain = chain
        self._number = number
        self._open_file = open_file
        self._cache = cache

    def at(self, file: RawFile) -> RemoteFolder:
        return RemoteFolder(self._chain, self._number + 1, self._open_file, self._cache)

    def has(self, name: str) -> bool:
        # Asked about the next piece of a split disk, of which there are none on a datastore.
        return False

    def raw(self, path: str) -> RemoteRaw:
        remote = self._open_file(path)
        try:
            return RemoteRaw(remote, path, self._cache)
        except BaseException:
            remote.close()
            raise

    def open(self, names: list[str], what: str = "extent") -> RawFile:
        if what == "parent":
            return self._parent(names)
        name = names[-1]
        refuse_name(name, self.head)
        if "/" in name:
            raise VmdkError("The descriptor names an extent outside its own folder.", path=self.head, found=name)
        return self.raw(_split(self.head)[0] + name)

    def _parent(self, names: list[str]) -> RawFile:
        if self._number + 1 >= len(self._chain):
            message = "The disk is a delta, but vCenter names no parent of it."
            raise VmdkError(message, path=self.head, found=bounded(names[0], 120), code=MISSING)
        path = self._chain[self._number + 1]
        if _split(path)[1] not in {posixpath.basename(name) for name in names}:
            raise VmdkError(
                "The delta's descriptor names another parent than vCenter does.",
                path=self.head,
                found=bounded(names[0], 120),
                expected=path,
                next_command="consolidate the VM's disks, then run the same command again",
            )
        return self.raw(path)


class ChainSource:
    """The disk C(chain[0]) over its parents. What is told to be zero or a hole by a delta is not read.

    :param chain: datastore paths from the disk to its base.
    :param open_file: opens a datastore path.
    :raises VmdkError: a link is damaged, of a kind that is not read, or does not belong to the one above it.
    """

    #: A gap shorter than this is read rather than asked around (bytes): a request costs more.
    gap = 256 << 10

    def __init__(self, chain: Sequence[str], open_file: Callable[[str], RemoteFile]) -> None:
        folder = RemoteFolder(chain, 0, open_file, Cache())
        self.disk: Disk = open_from(folder.raw(chain[0]), folder)
        self.capacity = self.disk.capacity
        self.identity = f"chain:{self.disk.identity}"
        try:
            if len(self.disk.info.chain) != len(chain):
                raise VmdkError(
                    "The files' chain is shorter than vCenter's.", path=chain[0], found=len(self.disk.info.chain), expected=len(chain)
                )
        except BaseException:
            self.close()
            raise

    def extents(self, since: str | None = None) -> Iterator[Extent]:
        return self.disk.extents(since)

    def read(self, offset: int, length: int) -> bytes:
        return self.disk.read(offset, length)

    def close(self) -> None:
        self.disk.close()
