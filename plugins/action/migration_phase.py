# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tells the live report of a wave which phase a VM is in, or how it ended. On the controller; nothing is changed or connected."""

from __future__ import annotations

import time
from typing import Any, Mapping

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.ferry.vmware.plugins.plugin_utils.report.live import Live
from ansible_collections.ferry.vmware.plugins.plugin_utils.report.model import plain

PHASES = ("precheck", "plan", "prepare", "precopy", "copy", "cutover", "verify", "convert", "land", "ready", "note")
STATES = ("begin", "end", "failed")


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _VALID_ARGS = frozenset(("phase", "state", "result"))
    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(None, task_vars)
        args = self._task.args
        phase, state, row = str(args.get("phase") or ""), str(args.get("state") or "begin"), args.get("result")
        if state not in STATES:
            raise AnsibleActionFail(f"value of state must be one of: {', '.join(STATES)}, got: {state[:40]}")
        if phase not in PHASES and (phase or (state == "begin" and not row)):
            raise AnsibleActionFail(f"value of phase must be one of: {', '.join(PHASES)}, got: {phase[:40]}")
        if row is not None and not isinstance(row, Mapping):
            raise AnsibleActionFail("result must be a dictionary, as migration_report has them")
        live = None if self._task.check_mode else Live.of(task_vars or {}, self._templar)
        if live is not None and row:
            live.result(row)
        elif live is not None:
            live.phase(phase, state)
        result["ansible_facts"] = {"migrate_times": _times(task_vars or {}, phase, state == "begin" and not row)}
        return {**result, "changed": False}


def _times(task_vars: Mapping[str, Any], phase: str, begins: bool) -> list[dict[str, Any]]:
    """The VM's phases so far with their times in seconds since the epoch: plans learn from them how long steps take."""
    now = round(time.time(), 2)
    known = plain((task_vars.get("ansible_facts") or {}).get("migrate_times") or [])
    out = [{**row, "ended": row.get("ended") or now} for row in known if isinstance(row, dict)]
    return [*out, {"name": phase, "began": now, "ended": None}] if begins else out
