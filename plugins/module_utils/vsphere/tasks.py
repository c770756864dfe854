# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Waiting for vCenter's tasks and for a state to come, without lazy property access."""

from __future__ import annotations

import time
from typing import Any, Callable

from ..errors import ServerError
from .client import Session, fault_name, fault_text
from .properties import of_objects
from .steady import steadily

#: Seconds between two looks.
POLL = 1.0


def wait_task(
    session: Session,
    task: Any,
    *,
    vm: str | None = None,
    step: str,
    timeout: float = 600.0,
    progress: Callable[[int], None] | None = None,
    patience: float = 0.0,
    stop: Callable[[], None] | None = None,
    most: float = POLL,
) -> Any:
    """Wait until the task C(task) is over and return its result.

    :param timeout: seconds; the task itself goes on after that, vCenter has it.
    :param progress: gets the percentage whenever it changes.
    :param patience: seconds for which a vCenter that is away is asked again.
    :param stop: is called between two looks and raises where the waiting is to end; the task goes on.
    :param most: seconds between two looks, at most: less where something that is down waits for the end.
    :raises ServerError: code task (details.fault: the fault's name; details.gone where vCenter has forgotten the task) or timeout.
    """
    paths = {"Task": ("info.state", "info.error", "info.progress", "info.result")}
    end = time.monotonic() + timeout
    pause, shown = 0.05, -1
    while True:
        if stop is not None:
            stop()
        rows = steadily(lambda: of_objects(session, [task], paths, step=step), patience=patience, stop=stop)
        if not rows:
            raise ServerError("The task is gone from vCenter before it said how it ended.", code="task", vm=vm, step=step, gone=True)
        props = rows[0].props
        state = str(props.get("info.state", ""))
        if state == "success":
            return props.get("info.result")
        if state == "error":
            fault = props.get("info.error")
            said, name = ("no reason given", None) if fault is None else (fault_text(fault), fault_name(fault))
            raise ServerError("vCenter's task failed.", code="task", vm=vm, step=step, said=said, fault=name)
        percent = props.get("info.progress")
        if progress is not None and percent is not None and percent != shown:
            shown = int(percent)
            progress(shown)
        if time.monotonic() >= end:
            raise ServerError(
                f"The task is not over after {timeout:g} seconds.",
                code="timeout",
                vm=vm,
                step=step,
                left=f"the task {task._moId}, which goes on",
            )
        time.sleep(pause)
        pause = min(most, pause * 2)
