# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The end of a run: its results enter the files beside the report, and the last page is made of both."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Mapping, Sequence

from ansible_collections.ferry.vmware.plugins.plugin_utils.report import files, history, live, wave
from ansible_collections.ferry.vmware.plugins.plugin_utils.report.model import Vm


@dataclass
class Story:
    """What the last page and the JSON file are made of; without files beside the report, of the results alone."""

    vms: Sequence[Vm]
    entries: list[wave.Entry] = field(default_factory=list)
    attempts: list[history.Attempt | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.entries = self.entries or wave.plain_entries(self.vms)


def story(
    path: str, vms: Sequence[Vm], results: Sequence[Mapping[str, Any]], task_vars: Mapping[str, Any], now: float
) -> tuple[Story, list[str]]:
    """Keep the results in the files beside the page C(path), and give them with their histories.

    :param task_vars: the play's: its hosts, and the wave's group.
    :param now: seconds since the epoch.
    :returns: the story, and what a warning is to say.
    """
    folder = history.folder_of(path)
    run = live.run_name()
    try:
        known = history.all_of(folder)
    except OSError as e:
        return Story(vms), [f"The files beside the report {path} could not be read: {e.strerror or e}"]
    if not known:
        return Story(vms), []
    found = wave.match(vms, known.values(), run)
    warnings: list[str] = []
    for vm, row, one in zip(vms, results, found, strict=True):
        if one is not None:
            _keep(folder, one, vm, row, run, now, warnings)
    used = {one.host for one in found if one is not None}
    rest = [host for host in live.members(task_vars) if host not in used]
    entries = [*wave.finished(vms, found, run), *wave.others(known, rest, run, now)]
    attempts = [one.now if one is not None and one.now.run == run else None for one in found]
    return Story(vms, entries, attempts), warnings


def _keep(folder: str, one: history.History, vm: Vm, row: Mapping[str, Any], run: str, now: float, warnings: list[str]) -> None:
    attempt = one.of_run(run, now)
    if attempt.ended is not None:
        return  # the role has told it at the moment it was so
    attempt.close(now, vm.state == "failed")
    attempt.result, attempt.touched, attempt.ended = history.small_result(row), now, now
    one.name = vm.name
    try:
        files.replace(live.file_of(folder, one.host), history.dump(one))
    except OSError as e:
        if not warnings:
            warnings.append(f"The files beside the report could not be written: {e.strerror or e}")
