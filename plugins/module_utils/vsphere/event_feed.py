# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An event source for vCenter: its arguments, and the bridge from the thread that waits for vCenter to the loop that hands events on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from pathlib import Path
from typing import Any, Awaitable, Callable, Mapping

from ..errors import BadInput, FerryError, bounded
from .argspec import ENVIRONMENT
from .client import endpoint
from .event_model import DEFAULT_TYPES, Thresholds
from .event_store import MarkFile, default_path
from .event_watch import SWEEPS, WAIT, Batch, Options, Watch

#: Batches between the thread and the loop; when they are full, the events wait in vCenter.
DEPTH = 4
_STEP = "read the arguments of the event source"
_log = logging.getLogger("ferry.vmware.vcenter")

_CONNECTION = tuple(ENVIRONMENT)
_OWN = ("events", "datastore_used", "hysteresis", "sweep", "remind", "state_file", "wait")
#: What ansible-rulebook adds by itself.
_RULEBOOK = ("eda_feedback_queue",)
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def _bool(name: str, value: Any, wrong: list[str]) -> bool:
    text = str(value).strip().lower()
    if text not in (*_TRUE, *_FALSE):
        wrong.append(f"{name} is yes or no, not {bounded(value, 40)}")
    return text in _TRUE


def _number(name: str, value: Any, low: float, high: float, wrong: list[str]) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if isinstance(value, bool) or not low <= number <= high:
        wrong.append(f"{name} is a number from {low:g} to {high:g}, not {bounded(value, 40)}")
        return low
    return number


def _connection(args: Mapping[str, Any], env: Mapping[str, str], wrong: list[str]) -> dict[str, Any]:
    """The connection options, from the arguments or else the environment, as modules have them."""
    said = {name: args[name] if args.get(name) not in (None, "") else env.get(ENVIRONMENT[name]) for name in _CONNECTION}
    if said["validate_certs"] is not None:
        said["validate_certs"] = _bool("validate_certs", said["validate_certs"], wrong)
    if said["port"] is not None:
        said["port"] = int(_number("port", said["port"], 1, 65535, wrong))
    return said


def _texts(name: str, value: Any, wrong: list[str]) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(v, str) and v and len(v) <= 200 for v in value):
        wrong.append(f"{name} is a list of names")
        return ()
    return tuple(value)


def _thresholds(args: Mapping[str, Any], wrong: list[str]) -> Thresholds:
    used = args.get("datastore_used", [85])
    if not isinstance(used, list) or len(used) > 10:
        wrong.append("datastore_used is a list of at most 10 percents")
        used = []
    levels = tuple(sorted({_number("datastore_used", u, 1, 100, wrong) for u in used}))
    return Thresholds(levels, _number("hysteresis", args.get("hysteresis", 3), 0, 50, wrong))


def options_of(args: Mapping[str, Any], env: Mapping[str, str] | None = None) -> tuple[Options, Path]:
    """The options that the arguments of a rulebook say, and the file of the mark.

    :raises BadInput: says everything that is wrong with them.
    """
    wrong = [f"there is no argument {bounded(name, 40)}" for name in args if name not in (*_CONNECTION, *_OWN, *_RULEBOOK)]
    connection = _connection(args, os.environ if env is None else env, wrong)
    types = _texts("events", args.get("events", list(DEFAULT_TYPES)), wrong)
    thresholds = _thresholds(args, wrong)
    sweep = str(args.get("sweep", "new"))
    if sweep not in SWEEPS:
        wrong.append(f"sweep is one of {', '.join(SWEEPS)}, not {bounded(sweep, 40)}")
    remind = _number("remind", args.get("remind", 0), 0, 86400, wrong)
    wait = int(_number("wait", args.get("wait", WAIT), 1, 50, wrong))
    path = args.get("state_file")
    if path is not None and (not isinstance(path, str) or not path):
        wrong.append("state_file is a path")
    if wrong:
        raise BadInput(f"Wrong arguments: {'; '.join(wrong)}.", code="arguments", step=_STEP)
    where = endpoint(connection)
    file = Path(path).expanduser() if path else default_path(where.host, where.port)
    return Options(connection, types, thresholds, sweep, remind, wait), file


async def feed(put: Callable[[dict[str, Any]], Awaitable[None]], options: Options, path: Path) -> None:
    """Hand vCenter's events to C(put), one by one, until cancelled.

    An event is marked in the file C(path) after it was handed on. So after a kill at most MARK_EVERY (event_watch.py) of them
    are handed on again, with the same C(id), and none is left out.

    :raises FerryError: at the start: the file is somebody else's or none of ours, the password is wrong, and the like.
    """
    file = MarkFile(path)
    loop = asyncio.get_running_loop()
    batches: asyncio.Queue[Batch | BaseException] = asyncio.Queue()
    room = threading.Semaphore(DEPTH)
    stop = threading.Event()

    def hand(item: Batch | BaseException) -> None:
        while not room.acquire(timeout=1.0):
            if stop.is_set():
                return
        if not stop.is_set():
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to tell
                loop.call_soon_threadsafe(batches.put_nowait, item)

    def work(watch: Watch) -> None:
        try:
            watch.run(hand)
        except BaseException as e:  # noqa: BLE001 - raised again in the loop, which is where somebody sees it
            hand(e)

    with file.held():
        watch = Watch(options, file.load(), stop, lambda text: _log.warning("%s", text))
        # a daemon: a question that waits for vCenter does not hold up the end of the process
        threading.Thread(target=work, args=(watch,), name="ferry-vcenter-events", daemon=True).start()
        try:
            while True:
                item = await batches.get()
                room.release()
                if isinstance(item, BaseException):
                    raise item
                await _hand_on(put, item, file)
        finally:
            stop.set()


async def _hand_on(put: Callable[[dict[str, Any]], Awaitable[None]], batch: Batch, file: MarkFile) -> None:
    for event in batch.events:
        await put(event)
    try:
        await asyncio.to_thread(file.save, batch.mark)  # others of the loop get their turn meanwhile
    except FerryError as e:
        _log.error("%s", e)  # a full disk must not stop a failover; the next mark tries again
