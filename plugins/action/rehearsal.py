# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs the module ferry.vmware.rehearsal, and says on whose behalf: the playbook's process, which lives until all is removed again."""

from __future__ import annotations

import os
from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.ferry.vmware.plugins.module_utils.vsphere import snapshot_tag

MODULE = "ferry.vmware.rehearsal"


class ActionModule(ActionBase):
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        variables = task_vars or {}
        result: dict[str, Any] = super().run(tmp, variables)
        arguments = dict(self._task.args)
        # The task's own process is a child of the playbook's.
        process = snapshot_tag.process_name(os.getppid())
        if process:
            arguments.setdefault("owner", f"{process} {variables.get('inventory_hostname', '')}")
        done = self._execute_module(module_name=MODULE, module_args=arguments, task_vars=variables)
        failure = done.get("failure") or {}
        if (
            failure.get("code") == "rehearsing"
            and snapshot_tag.runs(str((failure.get("details") or {}).get("owner") or "").partition(" ")[0]) is False
        ):
            # It was this controller's, which alone can tell that it is over.
            done = self._execute_module(module_name=MODULE, module_args={**arguments, "again": True}, task_vars=variables)
        result.update(done)
        return result
