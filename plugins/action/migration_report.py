# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tells how a migration went: a table in the terminal, a page and a JSON file, all made on the controller."""

from __future__ import annotations

import datetime
import os
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.ferry.vmware.plugins.plugin_utils.report import closing, merge, model, page, table
from ansible_collections.ferry.vmware.plugins.plugin_utils.report.labels import LANGUAGES
from ansible_collections.ferry.vmware.plugins.plugin_utils.report.live import page_of

display = Display()


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _VALID_ARGS = frozenset(("results", "slices", "title", "html", "json", "concerns", "language"))
    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(None, task_vars)
        args = self._task.args
        given = [name for name in ("results", "slices") if args.get(name) is not None]
        if len(given) != 1:
            raise AnsibleActionFail("one of the following is required, and not both: results, slices")
        title = model.text(args.get("title")) or "Migration report"
        merged = merge.merge(_paths(args["slices"])) if given == ["slices"] else None
        results = merged.results if merged is not None else model.plain(args["results"])
        try:
            vms = model.vms_of(results)
        except ValueError as e:
            raise AnsibleActionFail(str(e)) from e
        language = str(args.get("language") or "en")
        if language not in LANGUAGES:
            raise AnsibleActionFail(f"value of language must be one of: {', '.join(LANGUAGES)}, got: {language[:40]}")
        totals = model.totals_of(vms)
        now = datetime.datetime.now(datetime.timezone.utc)
        written: dict[str, str] = {}
        warnings: list[str] = []
        story = closing.Story(vms)
        if merged is not None:
            story.entries, story.attempts = merged.entries(vms, now.timestamp())
            warnings += merged.warnings
            result["unfinished"] = merged.unfinished
        elif args.get("html") and not self._task.check_mode:
            story, said = closing.story(page_of(args["html"]), vms, results, task_vars or {}, now.timestamp())
            warnings += said
        concerns = model.concerns_of(model.plain(args.get("concerns")))
        for key in ("html", "json"):
            if not args.get(key):
                continue
            path = page_of(args[key])
            if not self._task.check_mode:
                try:
                    if key == "html":
                        content = page.wave_html(story.entries, title, now, concerns=concerns, language=language)
                    else:
                        content = page.as_json(results, totals, title, now, story.attempts)
                    page.write(path, content)
                except OSError as e:
                    # The machines have moved: a folder that cannot be written must not turn that into a failure.
                    warnings.append(f"The report {path} could not be written: {e.strerror or e}")
                    continue
            written[key] = path
        if not self._task.no_log:
            display.display(table.render(vms, totals, title, {"report" if k == "html" else k: v for k, v in written.items()}))
        sums = vars(totals)
        result.update(changed=False, totals=sums, failed_vms=[vm.name for vm in vms if vm.state == "failed"], **written)
        if warnings:
            result["warnings"] = warnings
        return result


def _paths(value: Any) -> list[str]:
    """The paths of the slices' reports."""
    plain = model.plain(value)
    if not isinstance(plain, list) or not plain or not all(isinstance(p, str) and p for p in plain):
        raise AnsibleActionFail("slices must be a list of paths, and not empty: no slice has left a report")
    return [os.path.abspath(os.path.expanduser(p)) for p in plain]
