# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Up to where an event source has handed on, in a file that outlives it.

The file is replaced as a whole: a new one is written, flushed and renamed, and the folder is flushed. One source has it at a time.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import tempfile
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Iterator, Mapping

from ..errors import BadInput, Busy, FerryError
from .event_model import Mark, Told

VERSION = 1
#: A mark with a thousand lost hosts takes some 200 KiB.
MAX_BYTES = 4 << 20
_STEP = "keep the place in vCenter's events"


def default_path(host: str, port: int) -> Path:
    """The file for a vCenter, of this user on this machine."""
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    plain = re.sub(r"[^A-Za-z0-9.-]", "_", host)[:60]
    known = hashlib.sha256(f"{host}:{port}".encode()).hexdigest()[:8]
    return Path(base).expanduser() / "ferry" / "events" / f"{plain}-{known}.json"


def _told(said: Any) -> dict[str, Told]:
    if not isinstance(said, dict):
        raise TypeError("no table")
    return {str(m): Told(str(t["id"]), str(t["since"]), str(t["name"]), float(t["level"])) for m, t in said.items()}


class MarkFile:
    """The file at C(path); its folder is made where it is not there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as e:
            raise BadInput(f"The folder {path.parent} cannot be made.", step=_STEP, said=e) from e

    def load(self) -> Mark | None:
        """What it says, None where there is none.

        :raises BadInput: it is none of ours. It is not thrown away: that would lose events without a word.
        """
        try:
            with open(self.path, "rb") as f:
                text = f.read(MAX_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as e:
            raise BadInput(f"{self.path} cannot be read.", step=_STEP, said=e) from e
        try:
            if len(text) > MAX_BYTES:
                raise ValueError("too long")
            said: Mapping[str, Any] = json.loads(text)
            if said["version"] != VERSION:
                raise ValueError(f"version {said['version']}")
            return Mark(str(said["vcenter"]), int(said["key"]), str(said["time"]), _told(said["hosts"]), _told(said["datastores"]))
        except (ValueError, KeyError, TypeError) as e:
            raise BadInput(
                f"{self.path} is no file of an event source of this version.",
                code="mark",
                step=_STEP,
                said=f"{type(e).__name__}: {e}",
                next_command="move it away: the source then begins with what happens from now on, and with the states there are",
            ) from e

    def save(self, mark: Mark) -> None:
        """Write C(mark), so that it is there after a power cut.

        :raises FerryError: code mark; the file is as it was.
        """
        text = json.dumps({"version": VERSION, **asdict(mark)}, ensure_ascii=False)
        temporary = ""
        try:
            handle, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=".new-")  # made with mode 0600
            with os.fdopen(handle, "w", encoding="utf-8") as f:
                f.write(text)
                f.flush()
                os.fsync(f.fileno())
            os.replace(temporary, self.path)
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as e:
            if temporary:
                Path(temporary).unlink(missing_ok=True)
            raise FerryError(f"{self.path} cannot be written.", code="mark", step=_STEP, said=e) from e

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within the block nobody else has the file.

        :raises Busy: somebody has.
        """
        with open(self.path.with_name(self.path.name + ".lock"), "a", encoding="ascii") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as e:
                raise Busy(
                    f"Another event source has {self.path}.",
                    step=_STEP,
                    next_command="stop the other one, or give this one a state_file of its own",
                ) from e
            yield
