# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Work for several threads, of which a part may run in the first one only: os-brick's, whose libraries may bring eventlet. A thread in
which eventlet's loop has run does not end (os-brick's Fibre Channel connector waits by it, and its imports do)."""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Callable, Sequence, TypeVar

Item = TypeVar("Item")
#: Seconds between two looks at whether all have ended.
_LOOK = 0.1


class Home:
    """Belongs to the thread that makes it."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._asked: queue.Queue[tuple[Callable[[], Any], Future[Any]]] = queue.Queue()

    def run(self, work: Callable[[], Any]) -> Any:
        """What C(work) gives, or raises, in the thread of this home. Called elsewhere, it waits for each() there."""
        if threading.get_ident() == self._thread:
            return work()
        answer: Future[Any] = Future()
        self._asked.put((work, answer))
        return answer.result()

    def each(self, work: Callable[[Item], None], items: Sequence[Item], *, at_once: int) -> list[BaseException]:
        """C(work) for all items in threads, and here what they ask run() for. When all have ended: what they raised, in the items' order."""
        with ThreadPoolExecutor(max(1, min(at_once, len(items))), thread_name_prefix="each") as pool:
            futures = [pool.submit(work, item) for item in items]
            while not all(f.done() for f in futures):
                self._serve()
        return [e for f in futures if (e := f.exception()) is not None]

    def _serve(self) -> None:
        try:
            work, answer = self._asked.get(timeout=_LOOK)
        except queue.Empty:
            return
        try:
            answer.set_result(work())
        except BaseException as e:  # noqa: BLE001 - it is raised in the thread that asked
            answer.set_exception(e)
