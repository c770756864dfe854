# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tells modules which run they belong to, so that they share its session with vCenter, and ends that session with the run.

Ansible imports an action plugin in its main process before it forks for the first task that uses it. So this file knows the run, and the
main process, which is the last to go, logs out. Sessions on other machines, of tasks that are delegated to a conversion host by ssh, are
out of its reach: these end when they have been idle, see session_store.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
from typing import Any, Mapping

from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action.normal import ActionModule as Normal

from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.session_store import RUN_VARIABLE, end_run
from ansible_collections.ferry.vmware.plugins.plugin_utils.report.live import name_of_process, run_name

#: The variable that switches it off.
WANTED = "ferry_session_reuse"
#: The main process, where this was imported there; its forks have the same value.
_MAIN = os.getpid() if multiprocessing.parent_process() is None else 0


def _end() -> None:
    if os.getpid() == _MAIN:
        with contextlib.suppress(Exception):  # the run is over: nothing can be told any more, and an idle session ends by itself
            end_run(name_of_process(_MAIN))


if _MAIN:
    atexit.register(_end)


def wants_reuse(task_vars: Mapping[str, Any], templar: Any) -> bool:
    """What C(ferry_session_reuse) says; yes where it says nothing."""
    value = task_vars.get(WANTED)
    return True if value is None else boolean(templar.template(value), strict=False)


def join_run(task: Any, task_vars: Mapping[str, Any], templar: Any) -> None:
    """Give the modules of C(task) the name of this run, unless C(ferry_session_reuse) is false or nobody would end its session."""
    if _MAIN and os.getppid() == _MAIN and wants_reuse(task_vars, templar):
        # The same way in which core hands ANSIBLE_ASYNC_DIR on. Once: a copy starts anew in each cycle of one task.
        wanted = {RUN_VARIABLE: run_name()}
        if wanted not in (task.environment or []):
            task.environment = [*(task.environment or []), wanted]


class ActionModule(Normal):
    """Runs the module of the task's name, as one of the run."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        join_run(self._task, task_vars or {}, self._templar)
        result: dict[str, Any] = super().run(tmp, task_vars)
        return result
