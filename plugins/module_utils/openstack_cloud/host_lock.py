# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A lock per volume on this machine. The kernel releases it with its process: whoever gets it knows that the last owner is gone."""

from __future__ import annotations

import fcntl
import json
import os
import time
from types import TracebackType
from typing import Any

from ..errors import Busy, bounded


class HostLock:
    """flock on a file per volume; its content says how far the last owner came."""

    def __init__(self, state_dir: str, volume_id: str, host: str) -> None:
        folder = os.path.join(state_dir, "volumes")
        os.makedirs(folder, mode=0o700, exist_ok=True)
        self._volume_id = volume_id
        self._host = host
        self._fd = os.open(os.path.join(folder, f"{volume_id}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            last = self._read()
            os.close(self._fd)
            raise Busy(
                f"Volume {volume_id} is being written by process {last.get('pid', '?')} of this host, {bounded(host, 80)}.",
                step="attach the volume",
                holder=host,
                pid=last.get("pid"),
            ) from None
        last = self._read()
        self.last_phase = str(last.get("phase") or "free")
        #: The server that the last owner had Nova attach the volume to.
        self.last_server = str(last.get("server") or "")

    def _read(self) -> dict[str, Any]:
        try:
            found = json.loads(os.pread(self._fd, 4096, 0) or b"{}")
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def note(self, phase: str, **facts: Any) -> None:
        text = json.dumps({"phase": phase, "pid": os.getpid(), "host": self._host, "volume": self._volume_id, "time": time.time(), **facts})
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, text.encode(), 0)
        os.fsync(self._fd)

    def release(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> HostLock:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()
