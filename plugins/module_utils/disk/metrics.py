# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The figures of a long task as a text file for Prometheus' node_exporter (its textfile collector reads C(*.prom) of a folder).

One file per VM, replaced at once and readable for all (0644): it holds names of VMs and disks, and figures. The format is
Prometheus' "Text-based format" 0.0.4; names and units follow its "Metric and label naming". What a run counts up, or did last,
it takes over from the file of the run before. Nothing depends on the file: where it cannot be written, the task goes on.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import time
from typing import Any, Mapping

from .errors import bounded

#: The folder, from the action plugin.
FOLDER_VARIABLE = "FERRY_METRICS_DIR"
#: Phases whose figures are percent, not bytes: what vCenter does to the VM's snapshots.
PERCENT_PHASES = ("snapshot", "consolidate")
#: Seconds between two writings.
INTERVAL = 5.0
#: Files of ours that nobody wrote for so many seconds are removed when a task begins.
AGE = 7 * 86400.0
#: What is read of an old file at most (bytes).
_MAX_FILE = 1_000_000

_HELP = (
    ("ferry_disk_size_bytes", "gauge", "Bytes that the phase goes over."),
    ("ferry_disk_done_bytes", "gauge", "Bytes of these that are behind it, skipped ones included."),
    ("ferry_disk_skipped_bytes", "gauge", "Bytes of these that needed no moving: holes, zeroes, unchanged or resumed parts."),
    ("ferry_disk_rate_bytes_per_second", "gauge", "Bytes moved per second, smoothed."),
    ("ferry_disk_remaining_seconds", "gauge", "Seconds until the phase ends, where that is known."),
    ("ferry_disk_phase", "gauge", "1 for the phase that the disk is in."),
    ("ferry_task_running", "gauge", "Whether a task for the VM runs now."),
    ("ferry_task_errors_total", "counter", "Tasks for the VM that ended with an error, or were stopped."),
    ("ferry_task_last_success_timestamp_seconds", "gauge", "When a task for the VM ended well last."),
    ("ferry_task_last_update_timestamp_seconds", "gauge", "When these figures were written."),
)
_ERRORS, _SUCCESS = "ferry_task_errors_total", "ferry_task_last_success_timestamp_seconds"


def escaped(value: str) -> str:
    """C(value) as a label's value stands between its quotes."""
    safe = value.encode("utf-8", "backslashreplace").decode()
    return safe.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def file_name(name: str) -> str:
    """The file of the VM C(name): readable, and apart from those of all other names."""
    safe = re.sub(r"[^A-Za-z0-9._-]", "_", name)[:60]
    known = safe if safe == name and name else f"{safe}-{hashlib.sha256(name.encode('utf-8', 'backslashreplace')).hexdigest()[:8]}"
    return f"ferry_{known}.prom"


def render(status: Mapping[str, Any], errors: float, success: float) -> str:
    """The file's content.

    :param status: as progress.py writes it.
    :param errors: tasks for this VM that failed so far.
    :param success: seconds since the epoch, 0 where none ended well yet.
    """
    vm = f'vm="{escaped(str(status["name"]))}"'
    samples: dict[str, list[str]] = {name: [] for name, _kind, _help in _HELP}

    def add(name: str, value: float, labels: str = vm) -> None:
        samples[name].append(f"{name}{{{labels}}} {float(value)!r}")

    for label, disk in status["disks"].items():
        of = f'{vm},disk="{escaped(str(label))}"'
        add("ferry_disk_phase", 1, f'{of},phase="{escaped(str(disk["phase"]))}"')
        if status["unit"] != "bytes" or disk["phase"] in PERCENT_PHASES:
            continue
        add("ferry_disk_size_bytes", disk["total"], of)
        add("ferry_disk_done_bytes", disk["done"], of)
        add("ferry_disk_skipped_bytes", disk["skipped"], of)
        add("ferry_disk_rate_bytes_per_second", disk["rate"], of)
        if disk["left"] is not None:
            add("ferry_disk_remaining_seconds", disk["left"], of)
    add("ferry_task_running", status["state"] in ("running", "stopping"))
    add(_ERRORS, errors)
    if success:
        add(_SUCCESS, success)
    add("ferry_task_last_update_timestamp_seconds", status["time"])
    lines = []
    for name, kind, text in _HELP:
        if samples[name]:
            lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}", *samples[name]]
    return "\n".join(lines) + "\n"


def _value(text: str, name: str) -> float:
    """The value of the metric C(name) in an old file, 0 where it has none."""
    found = re.search(rf"^{name}\{{[^\n]*\}} ([0-9.e+]+)$", text, re.MULTILINE)
    try:
        return float(found[1]) if found else 0.0
    except ValueError:
        return 0.0


class Metrics:
    """The file of one task in C(folder). C(problem): why it could not be written, empty where it could."""

    def __init__(self, folder: str) -> None:
        self.folder = os.path.abspath(os.path.expanduser(folder))
        self.problem = ""
        self._name: str | None = None
        self._errors = self._success = 0.0
        self._written = float("-inf")

    def write(self, status: Mapping[str, Any]) -> None:
        """Write C(status) where it is time to, and in any case when it is the end."""
        over = status["state"] in ("done", "failed")
        if not over and time.monotonic() - self._written < INTERVAL:
            return
        self._written = time.monotonic()
        try:
            if self._name != status["name"]:
                self._begin(str(status["name"]))
            if status["state"] == "failed":
                self._errors += 1
            if status["state"] == "done":
                self._success = float(status["time"])
            self._replace(render(status, self._errors, self._success))
            self.problem = ""
        except OSError as e:
            self.problem = bounded(f"{e.strerror or e}: {self.folder}", 300)

    def _begin(self, name: str) -> None:
        """The task has its name (a VM that was given by its UUID gets it late): go on from what its last file says."""
        if self._name is not None:
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(self.folder, file_name(self._name)))
        self._name = name
        self._errors = self._success = 0.0
        with contextlib.suppress(OSError, ValueError):
            with open(os.path.join(self.folder, file_name(name)), encoding="utf-8") as f:
                old = f.read(_MAX_FILE)
            self._errors, self._success = _value(old, _ERRORS), _value(old, _SUCCESS)
        self._tidy()

    def _tidy(self) -> None:
        """Remove files of ours that are of another week, and what killed tasks left half written."""
        oldest = time.time() - AGE
        for entry in os.scandir(self.folder):
            if entry.name.startswith("ferry_") and re.search(r"\.prom(\.[0-9a-f]{12})?$", entry.name):
                with contextlib.suppress(OSError):
                    if entry.is_file(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_mtime < oldest:
                        os.unlink(entry.path)

    def _replace(self, text: str) -> None:
        path = os.path.join(self.folder, file_name(str(self._name)))
        temp = f"{path}.{secrets.token_hex(6)}"
        fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            os.fchmod(fd, 0o644)  # whatever the umask: node_exporter is another user
            with os.fdopen(fd, "w", encoding="utf-8") as f:
                f.write(text)
            os.replace(temp, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temp)
            raise
