# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tells what the doctor has found: a table in the terminal, a page and a JSON file, all made on the controller."""

from __future__ import annotations

import datetime
import json
import os
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.ferry.vmware.plugins.plugin_utils.doctor import findings, shown
from ansible_collections.ferry.vmware.plugins.plugin_utils.report import files, model

display = Display()


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _VALID_ARGS = frozenset(("looked", "checked", "pilot", "title", "html", "json"))
    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(None, task_vars)
        args = self._task.args
        if args.get("looked") is None:
            raise AnsibleActionFail("missing required arguments: looked")
        now = datetime.datetime.now(datetime.timezone.utc)
        try:
            found = findings.build(
                model.plain(args["looked"]),
                title=model.text(args.get("title")) or "A look at vCenter",
                when=now,
                checked=model.plain(args.get("checked")) or None,
                pilot=model.plain(args.get("pilot")) or None,
            )
        except (ValueError, KeyError, TypeError) as e:
            raise AnsibleActionFail(f"What the doctor is to tell of is not what its modules return: {e}") from e
        written: dict[str, str] = {}
        warnings: list[str] = []
        for key in ("html", "json"):
            if not args.get(key):
                continue
            path = os.path.abspath(os.path.expanduser(str(args[key])))
            if not self._task.check_mode:
                content = shown.html(found, now) if key == "html" else json.dumps(found, ensure_ascii=False, indent=2) + "\n"
                try:
                    files.replace(path, content)
                except OSError as e:
                    warnings.append(f"The findings could not be written to {path}: {e.strerror or e}")
                    continue
            written[key] = path
        if not self._task.no_log:
            display.display(shown.table(found, {"page" if k == "html" else k: v for k, v in written.items()}))
        result.update(changed=False, totals=found["totals"], verdicts=[said for unused, said in findings.verdicts(found)], **written)
        if warnings:
            result["warnings"] = warnings
        return result
