# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Shows the state of migrations on all conversion hosts: a table in the terminal, and a JSON file, made on the controller."""

from __future__ import annotations

import datetime
import os
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.ferry.vmware.plugins.plugin_utils import status_table
from ansible_collections.ferry.vmware.plugins.plugin_utils.report import files, model

display = Display()


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _VALID_ARGS = frozenset(("results", "json"))
    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(None, task_vars)
        args = self._task.args
        if not isinstance(args.get("results"), list):
            raise AnsibleActionFail("missing required arguments: results (a list)")
        try:
            found = status_table.gathered(model.plain(args["results"]))
        except ValueError as e:
            raise AnsibleActionFail(str(e)) from e
        path = os.path.abspath(os.path.expanduser(str(args["json"]))) if args.get("json") else None
        written = None
        if path and not self._task.check_mode:
            now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
            try:
                files.replace(path, status_table.as_json(found, now), durable=True)
                written = path
            except OSError as e:
                result["warnings"] = [f"The state {path} could not be written: {e.strerror or e}"]
        if not self._task.no_log:
            display.display(status_table.render(found, written))
        result.update(changed=False, states=status_table.states(found), **found)
        if path and (written or self._task.check_mode):
            result["json"] = path
        return result
