# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tasks: read, wait for one or for many, cancel, find those of an object.

A task keeps running whatever we do: a timeout cancels nothing, and its href is all that is needed to wait for it again.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Callable, Iterable, Sequence

from ..errors import ServerError, bounded
from . import query
from .client import Client
from .document import Element, child, children, link, name_of, text_of, whole
from .faults import facts_of
from .transport import local_path

#: What relocate's tasks are called.
RELOCATE = "vappRelocateVm"
IN_FLIGHT = ("queued", "preRunning", "running", "postRunning")
#: Codes of errors of a server that is away for a while, and for how many seconds that is borne while a task is waited for.
AWAY = ("unavailable", "throttled", "lost_answer", "unreachable", "html")
PATIENCE = 300.0
#: Seconds between two looks: the first, and the longest.
FIRST_LOOK = 0.1
LONGEST_LOOK = 5.0


@dataclass(frozen=True)
class Task:
    """A task as it was when it was read.

    :param href: as the server gives it.
    :param owner: the href of the object that it works on.
    :param error: major, minor and said, where it ended in an error.
    """

    href: str
    status: str
    operation: str = ""
    operation_name: str = ""
    owner: str = ""
    owner_name: str = ""
    progress: int | None = None
    error: dict[str, Any] | None = None
    cancel_href: str | None = None

    @property
    def path(self) -> str:
        """Its path on the endpoint, which is the same however the task was come by."""
        return local_path(self.href)

    @property
    def in_flight(self) -> bool:
        return self.status in IN_FLIGHT

    def as_dict(self) -> dict[str, Any]:
        """What modules return of it."""
        return {"href": self.href, "status": self.status, "progress": 100 if self.status == "success" else self.progress}


def task_of(root: Element) -> Task:
    """The task in a C(Task) element.

    :raises ServerError: code C(protocol): it is none.
    """
    href = root.get("href")
    if name_of(root) != "Task" or not href:
        raise ServerError("The server answers with something else than a task.", code="protocol", step="read a task", said=name_of(root))
    owner, fault = child(root, "Owner"), child(root, "Error")
    return Task(
        href=href,
        status=root.get("status") or "",
        operation=bounded(root.get("operation") or "", 200),
        operation_name=root.get("operationName") or "",
        owner=(owner.get("href") or "") if owner is not None else "",
        owner_name=(owner.get("name") or "") if owner is not None else "",
        progress=whole(text_of(root, "Progress") or None),
        error=facts_of(fault) if fault is not None else None,
        cancel_href=link(root, "task:cancel"),
    )


def read_task(client: Client, href: str) -> Task:
    """The task at C(href), which may have been kept since an earlier run.

    :raises ServerError: code not_found or forbidden where it has expired.
    """
    return task_of(client.get(href, step="look how far the task is"))


def cancel(client: Client, task: Task) -> None:
    """Ask the server to stop the task; it may take a while, and it may be too late."""
    client.request("POST", task.cancel_href or f"{task.href}/action/cancel", step="cancel the task")


def failed(task: Task, *, vm: str | None = None, step: str) -> ServerError:
    """The error for a task that ended in another way than by success."""
    facts = task.error or {}
    said = ": ".join(str(p) for p in (facts.get("minor"), facts.get("said")) if p)
    words = {
        "error": "The task failed.",
        "canceled": "The task was canceled.",
        "aborted": "The task was aborted, by a restart of the cell for example.",
    }
    return ServerError(
        words.get(task.status, f"The task ended as {bounded(task.status, 40)}."),
        code="task",
        vm=vm,
        step=step,
        said=said or "no reason given",
        left="the VM where it was; the server undoes a move that it did not finish",
        task=task.href,
        status=task.status,
        major=facts.get("major"),
        minor=facts.get("minor"),
    )


def wait_task(
    client: Client,
    href: str,
    *,
    step: str,
    timeout: float = 3600.0,
    vm: str | None = None,
    progress: Callable[[Task], None] | None = None,
) -> Task:
    """Wait until the task at C(href) has succeeded. The session is renewed where it expires meanwhile.

    :param timeout: seconds; the task itself goes on after that.
    :param progress: gets the task whenever its status or its percentage changes.
    :raises ServerError: code C(task) (details: task, status, major, minor) or C(timeout) (details: task).
    """
    end = time.monotonic() + timeout
    pause, shown, away = FIRST_LOOK, None, 0.0
    while True:
        try:
            task, away = read_task(client, href), 0.0
        except ServerError as e:
            # a cell that is restarted is away for minutes, and the task may go on in another
            away = away or time.monotonic()
            if e.code not in AWAY or time.monotonic() - away > PATIENCE or time.monotonic() >= end:
                e.left = f"perhaps the task {href}, which goes on by itself"
                e.add(vm=vm, next_command="the same again: it joins the task where it is still under way")
                raise
            client.sleep(LONGEST_LOOK)
            continue
        if progress is not None and (task.status, task.progress) != shown:
            shown = (task.status, task.progress)
            progress(task)
        if task.status == "success":
            return task
        if not task.in_flight:
            raise failed(task, vm=vm, step=step)
        left = end - time.monotonic()
        if left <= 0:
            raise timed_out(task, timeout, vm=vm, step=step)
        client.sleep(min(pause, left))
        pause = min(LONGEST_LOOK, pause * 1.5)


def timed_out(task: Task, timeout: float, *, vm: str | None, step: str) -> ServerError:
    """The error for a task that is still going on after C(timeout) seconds."""
    return ServerError(
        f"The task is not over after {timeout:g} seconds.",
        code="timeout",
        vm=vm,
        step=step,
        left=f"the task {task.href}, which goes on",
        next_command="the same again: it joins the task that is under way",
        task=task.href,
        progress=task.progress,
    )


# -- many tasks -------------------------------------------------------------------------------------------------------


def _record_task(record: query.Record) -> Task:
    return Task(
        href=record.get("href") or "",
        status=record.get("status") or "",
        operation_name=record.get("name") or "",
        owner=record.get("object") or "",
        owner_name=record.get("objectName") or "",
        progress=whole(record.get("progress")),
    )


def find_tasks(client: Client, *, operation: str = RELOCATE, status: Sequence[str] = (), owner_name: str | None = None) -> list[Task]:
    """Tasks from one query whose answer comes in pages. An asterisk in C(owner_name) is none.

    :param operation: those of this name.
    :param status: those in one of these states.
    :param owner_name: those of objects called so.
    """
    era = client.era
    where = query.every(
        query.equal("name", operation, era),
        query.any_of("status", status, era) if status else None,
        query.equal("objectName", owner_name, era) if owner_name and "*" not in owner_name else None,
    )
    # all fields: progress came into the records at a version that is not documented, and asking for it before might be refused
    found = query.records(client, "adminTask", step="look which tasks are under way", where=where)
    tasks = [_record_task(r) for r in found if r.get("href")]
    return [t for t in tasks if t.operation_name == operation and (not status or t.status in status)]


def look_at(client: Client, hrefs: Iterable[str], *, operation: str = RELOCATE) -> dict[str, Task]:
    """How far the tasks C(hrefs) are, by those hrefs: one query for those that are under way, one request for each that no longer is.

    To be called again after a pause with those that were still under way.
    """
    wanted = list(dict.fromkeys(hrefs))
    if len(wanted) < 3:
        return {href: read_task(client, href) for href in wanted}
    running = {t.path: t for t in find_tasks(client, operation=operation, status=IN_FLIGHT)}
    return {href: running.get(local_path(href)) or read_task(client, href) for href in wanted}


def wait_many(
    client: Client,
    hrefs: Iterable[str],
    *,
    timeout: float = 3600.0,
    operation: str = RELOCATE,
    ended: Callable[[Task], None] = lambda task: None,
) -> dict[str, Task]:
    """Wait until all tasks C(hrefs) have ended, in whichever way, and return them by those hrefs; few requests, however many they are.

    :param timeout: seconds; those that are still under way are then returned as they are.
    :param ended: gets each task once, when it has ended.
    """
    found: dict[str, Task] = {}
    waiting = list(dict.fromkeys(hrefs))
    end = time.monotonic() + timeout
    pause = FIRST_LOOK
    while waiting:
        looked = look_at(client, waiting, operation=operation)
        found.update(looked)
        over = [href for href in waiting if not looked[href].in_flight]
        for href in over:
            ended(looked[href])
        waiting = [href for href in waiting if href not in over]
        left = end - time.monotonic()
        if left <= 0:
            break
        if waiting:
            client.sleep(min(pause, left))
            pause = FIRST_LOOK if over else min(LONGEST_LOOK, pause * 1.5)
    return found


def of_entity(root: Element) -> list[Task]:
    """The tasks that an entity lists of itself: queued, running or completed recently."""
    tasks = child(root, "Tasks")
    return [task_of(t) for t in children(tasks, "Task")] if tasks is not None else []
