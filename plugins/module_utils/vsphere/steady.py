# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Going on where vCenter is away for a while: a restart, a broken connection, an operation of somebody else on the same VM."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from typing import Any, Callable, Iterator, TypeVar

from ..errors import FerryError, Interrupted, ServerError

T = TypeVar("T")

#: Seconds for which a vCenter that is away is asked again: its services need some minutes after a restart.
PATIENCE = 300.0
#: Codes of errors that say nothing about the request: it may be made again where it changes nothing.
AWAY = frozenset({"unreachable", "timeout", "protocol"})
#: Faults that pass by themselves: somebody else works on the VM (a backup, a vMotion), or vCenter has lost its host for a moment.
BUSY = frozenset({"TaskInProgress", "ConcurrentAccess", "HostCommunication", "HostNotConnected", "HostNotReachable"})


def is_away(e: BaseException) -> bool:
    """Whether C(e) says that the server did not answer, not that it refused."""
    return isinstance(e, ServerError) and e.code in AWAY


def is_busy(e: BaseException) -> bool:
    """Whether C(e) is a refusal that passes by itself."""
    return isinstance(e, ServerError) and e.details.get("fault") in BUSY


class Deadline:
    """Waits that become longer, up to an end. C(seconds): from now to the end."""

    def __init__(self, seconds: float, *, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep) -> None:
        self._clock = clock
        self._sleep = sleep
        self._end = clock() + seconds
        self._pause = 0.2

    @property
    def left(self) -> float:
        """Seconds to the end, at least 0."""
        return max(0.0, self._end - self._clock())

    def wait(self) -> bool:
        """Sleep for a moment; False, at once, where the end has come."""
        left = self.left
        if left <= 0:
            return False
        self._sleep(min(left, self._pause))
        self._pause = min(5.0, self._pause * 2)
        return True

    def soon(self) -> None:
        """Make the next wait short again: something has happened."""
        self._pause = 0.2


def steadily(work: Callable[[], T], *, patience: float = PATIENCE, stop: Callable[[], None] | None = None) -> T:
    """C(work()), a question that changes nothing, asked again while vCenter is away.

    :param patience: seconds.
    :param stop: is called between two tries and raises where the work is to end.
    """
    deadline = Deadline(patience)
    while True:
        try:
            return work()
        except FerryError as e:
            if not is_away(e) or not deadline.wait():
                raise
        if stop is not None:
            stop()


@contextlib.contextmanager
def ending_tidily() -> Iterator[None]:
    """Within the block SIGTERM and SIGHUP raise Interrupted, once, so that what was begun is taken back before the process ends."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signals = (signal.SIGTERM, signal.SIGHUP)

    def end(number: int, frame: Any) -> None:
        for s in signals:
            signal.signal(s, signal.SIG_IGN)
        raise Interrupted(f"Stopped by {signal.Signals(number).name}.", step="wait for the work to end")

    before = {s: signal.signal(s, end) for s in signals}
    try:
        yield
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)
