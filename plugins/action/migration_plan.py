# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Makes the plan of a wave out of what was read, shows it, writes it down, and holds a wave to one that was saved."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.ferry.vmware.plugins.module_utils.disk.errors import BadInput
from ansible_collections.ferry.vmware.plugins.plugin_utils.plan import build, drift, page, table
from ansible_collections.ferry.vmware.plugins.plugin_utils.report.model import plain, text
from ansible_collections.ferry.vmware.plugins.plugin_utils.report.page import write

display = Display()

LISTS = ("hosts", "facts", "entries", "terms")
#: Differences that the message of a failure writes out; the result has all of them.
SHOWN = 20


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _VALID_ARGS = frozenset(
        (*LISTS, "machines", "usage", "precheck", "landing", "forks", "title", "html", "json", "hold_to", "on_drift", "part", "language")
    )
    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(None, task_vars)
        args = {k: plain(v) for k, v in self._task.args.items()}
        try:
            found = self._plan(args, task_vars or {})
            differs, warnings = self._held(args, found, task_vars or {})
        except BadInput as e:
            return {**result, "failed": True, "changed": False, "msg": str(e), "failure": e.as_dict()}
        written = self._write(args, found, differs, warnings)
        if not self._task.no_log:
            display.display(table.render(found, differs, written))
        result.update(changed=False, plan=found, drift=differs, totals=found["totals"], **written)
        if warnings:
            result["warnings"] = warnings
        if differs and args.get("on_drift", "stop") == "stop":
            lines = [d["text"] for d in differs]
            more = f" … and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
            result.update(failed=True, failure={"code": "drift", "details": {"drift": differs}})
            result["msg"] = (
                f"The wave is no longer what was planned ({len(lines)} differences): {'; '.join(lines[:SHOWN])}{more}. Nothing was started."
                " Next: make a new plan with ferry.vmware.plan and look at it, or go on all the same with -e ferry_plan_drift=warn."
            )
        return result

    def _plan(self, args: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        lists = {name: args.get(name) for name in LISTS}
        wrong = [name for name, value in lists.items() if not isinstance(value, list)]
        if wrong:
            raise AnsibleActionFail(f"missing required arguments, or not lists: {', '.join(wrong)}")
        if len({len(value) for value in lists.values() if value is not None}) > 1:
            raise AnsibleActionFail("hosts, facts, entries and terms must have one entry per VM each")
        for name in ("facts", "entries", "terms"):
            if not all(isinstance(row, dict) for row in lists[name] or ()):
                raise AnsibleActionFail(f"{name} must be a list of dictionaries")
        for name in ("machines", "usage", "precheck", "landing"):
            if not isinstance(args.get(name) or {}, dict):
                raise AnsibleActionFail(f"{name} must be a dictionary")
        rows: list[Sequence[Any]] = [lists[name] or [] for name in LISTS]
        wave = [build.Given(str(host), facts, entry, build.terms_of(terms)) for host, facts, entry, terms in zip(*rows, strict=True)]
        known = build.Known(args.get("machines") or {}, args.get("usage") or {}, args.get("precheck") or {}, args.get("landing") or {})
        try:
            forks = max(1, int(args.get("forks") or task_vars.get("ansible_forks") or 5))
        except (TypeError, ValueError):
            raise AnsibleActionFail("forks must be a whole number") from None
        title = text(args.get("title")) or "Migration plan"
        return build.build(title, wave, known, forks=forks, now=datetime.datetime.now().astimezone())

    def _held(
        self, args: Mapping[str, Any], found: Mapping[str, Any], task_vars: Mapping[str, Any]
    ) -> tuple[list[dict[str, Any]], list[str]]:
        """What differs from the plan that was saved, and what has to be said of that."""
        on_drift = args.get("on_drift") or "stop"
        if on_drift not in ("stop", "warn"):
            raise AnsibleActionFail(f"value of on_drift must be one of: stop, warn, got: {str(on_drift)[:40]}")
        if not args.get("hold_to"):
            return [], []
        path = _path(args["hold_to"])
        saved = drift.load(path)
        differs = [d.as_dict() for d in drift.compare(saved, found, boolean(args.get("part") or False, strict=False))]
        newer = drift.newer_sources(saved, [str(s) for s in task_vars.get("ansible_inventory_sources") or ()])
        if newer and on_drift == "stop":
            raise BadInput(
                f"The plan is older than the inventory: {', '.join(newer)} was changed after it was made ({saved['made']}).",
                code="plan_old",
                step="compare with the plan",
                left="nothing was started",
                next_command="make a new plan with ferry.vmware.plan, or go on all the same with -e ferry_plan_drift=warn",
                drift=differs,
            )
        warnings = [f"{source} was changed after the plan was made" for source in newer]
        if differs and on_drift == "warn":
            warnings.append(f"The wave differs from the plan {path} in {len(differs)} points; it goes on, as ferry_plan_drift says.")
        return differs, warnings

    def _write(
        self, args: Mapping[str, Any], found: Mapping[str, Any], differs: Sequence[Mapping[str, Any]], warnings: list[str]
    ) -> dict[str, str]:
        """Write the files that were asked for, in check mode too: they are what a plan is made for."""
        written: dict[str, str] = {}
        for key in ("html", "json"):
            if not args.get(key):
                continue
            path = _path(args[key])
            try:
                content = page.html(found, differs, language=str(args.get("language") or "en")) if key == "html" else _as_json(found)
                write(path, content)
            except ValueError as e:
                raise AnsibleActionFail(str(e)) from e
            except OSError as e:
                warnings.append(f"The plan {path} could not be written: {e.strerror or e}")
                continue
            written[key] = path
        return written


def _path(value: Any) -> str:
    return os.path.abspath(os.path.expanduser(str(value)))


def _as_json(found: Mapping[str, Any]) -> str:
    return json.dumps(found, ensure_ascii=False, indent=1) + "\n"
