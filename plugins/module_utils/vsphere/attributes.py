# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Definitions of custom attributes, and locks made of them.

vCenter takes a name for a custom attribute once: a second AddCustomFieldDef answers DuplicateName. That is the one thing in its API
that only one can have, so a definition is the lock: who has made it holds it, who removes it lets it go. Its value on the root folder
says who and since when, by vCenter's clock. Definitions are removed by their key, which is never given twice: so a lock that is left
over is broken once, however many find it.
Vendor reference: vSphere Web Services API, CustomFieldsManager (AddCustomFieldDef, SetField, RemoveCustomFieldDef, RenameCustomFieldDef).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import socket
import time
import uuid
from dataclasses import dataclass
from typing import Any, Callable, Iterator

from ..errors import Busy, FerryError, ServerError, bounded
from .client import Session
from .properties import of_objects

#: What every attribute of ours begins with.
PREFIX = "ferry."
LOCK = PREFIX + "lock."
#: Seconds after which a lock counts as left over by a run that was killed; what it guards takes a few seconds at most.
LEASE = 120.0
#: Seconds after which a lock that says nothing of its owner does: that is written right after the lock is made.
NAMELESS = 20.0


@dataclass(frozen=True)
class Field:
    """A definition. C(kind): the type of object that it is for, None for all."""

    key: int
    name: str
    kind: str | None


def fields(session: Session) -> list[Field]:
    """All definitions of custom attributes.

    :raises ServerError: code no_attributes on an ESXi host, which has none.
    """
    manager = session.content.customFieldsManager
    if manager is None:
        raise ServerError(
            "This is no vCenter: an ESXi host alone has no custom attributes.", code="no_attributes", step="read the attributes"
        )
    rows = of_objects(session, [manager], {"CustomFieldsManager": ("field",)}, step="read the attributes")
    found = rows[0].props.get("field") or () if rows else ()
    return [Field(int(f.key), str(f.name), f.managedObjectType._wsdlName if f.managedObjectType is not None else None) for f in found]


def field(session: Session, name: str) -> Field | None:
    """The definition called C(name) that is for all types."""
    return next((f for f in fields(session) if f.name == name and f.kind is None), None)


def add(session: Session, name: str) -> int | None:
    """Define the attribute for all types; its key, or None where there is one of that name (DuplicateName)."""
    try:
        made = session.call(
            session.content.customFieldsManager.AddCustomFieldDef, name, None, None, None, step=f"define the attribute {name}"
        )
    except ServerError as e:
        if e.details.get("fault") == "DuplicateName":
            return None
        raise
    return int(made.key)


def ensure(session: Session, name: str) -> int:
    """The key of the attribute, which is defined where it was not."""
    for _attempt in range(3):
        found = field(session, name)
        if found is not None:
            return found.key
        key = add(session, name)
        if key is not None:
            return key
    raise ServerError(
        f"The custom attribute {name} is defined for one type of object only; it is needed for all.",
        code="attribute",
        step=f"define the attribute {name}",
        next_command=f"remove the attribute {name} in vCenter (Tags & Custom Attributes), and run this again",
    )


def remove(session: Session, key: int) -> bool:
    """Remove the definition and all its values; False where it is gone already."""
    try:
        session.call(session.content.customFieldsManager.RemoveCustomFieldDef, key, step="remove an attribute")
    except ServerError as e:
        if e.details.get("fault") in ("NotFound", "InvalidArgument", "ManagedObjectNotFound"):
            return False
        raise
    return True


def set_value(session: Session, entity: Any, key: int, value: str) -> None:
    """Set a value; an empty one removes it."""
    session.call(session.content.customFieldsManager.SetField, entity, key, value, step="set a custom attribute")


def lock_name(what: str) -> str:
    """The name of the lock of C(what): names of attributes are short, those of definitions may not be."""
    return LOCK + hashlib.sha256(what.encode()).hexdigest()[:20]


def server_time(session: Session) -> float:
    """vCenter's clock, seconds since the epoch."""
    now = session.call(session.vim.ServiceInstance("ServiceInstance", session.stub).CurrentTime, step="read vCenter's clock", again=True)
    return float(now.timestamp())


@dataclass(frozen=True)
class Holder:
    """What a lock says. C(since): by vCenter's clock; None where it does not say."""

    key: int
    owner: str
    since: float | None


def holder(session: Session, name: str) -> Holder | None:
    """Who has the lock called C(name)."""
    found = field(session, name)
    if found is None:
        return None
    rows = of_objects(session, [session.content.rootFolder], {"Folder": ("customValue",)}, step="read a lock")
    values = rows[0].props.get("customValue") or () if rows else ()
    text = next((str(v.value) for v in values if v.key == found.key), "")
    try:
        said = json.loads(text)
        since = float(said["since"])
        return Holder(found.key, bounded(said["owner"], 120), since if math.isfinite(since) else None)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return Holder(found.key, "", None)


def _left_over(held: Holder, now: float, seen: float) -> bool:
    """Whether the lock was left by a run that was killed.

    :param now: vCenter's clock. What says that it was taken later than that (a clock that was set back, a hand that wrote it) says nothing.
    :param seen: seconds for which it was watched.
    """
    if held.since is None or held.since > now + LEASE:
        return seen > NAMELESS
    return now - held.since > LEASE


def sweep(session: Session) -> int:
    """Remove all locks that killed runs have left and that say since when; how many. Those that say nothing are found by acquire()."""
    found = [f for f in fields(session) if f.name.startswith(LOCK)]
    removed = 0
    if found:
        now = server_time(session)
        for f in found:
            held = holder(session, f.name)
            if held is not None and held.key == f.key and held.since is not None and now - held.since > LEASE:
                removed += remove(session, f.key)
    return removed


class Lock:
    """A lock that is held. C(sure()) is to be asked before each write, and once after the last."""

    def __init__(self, session: Session, what: str, key: int, clock: Callable[[], float]) -> None:
        self._session = session
        self.what = what
        self.key = key
        self._clock = clock
        self._owner = f"{socket.gethostname()} {os.getpid()} {uuid.uuid4().hex[:8]}"
        self._until = clock() + LEASE / 2

    def sign(self) -> None:
        """Write who has it and since now: its time begins anew."""
        until = self._clock() + LEASE / 2
        said = {"owner": self._owner, "since": server_time(self._session), "what": self.what[:120]}
        set_value(self._session, self._session.content.rootFolder, self.key, json.dumps(said))
        self._until = until

    def sure(self) -> None:
        """Nothing, where the lock is still ours.

        :raises Busy: it may have been broken: half of its time is over, or it is gone.
        """
        if self._clock() < self._until and any(f.key == self.key for f in fields(self._session)):
            return
        raise Busy(
            f"The lock of {self.what} was lost: this run stood still for too long.",
            step="hold the lock",
            next_command="run it again",
        )


def acquire(
    session: Session,
    what: str,
    *,
    timeout: float = LEASE + 60.0,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Lock:
    """Take the lock of C(what), breaking one that a killed run has left.

    :param timeout: seconds to wait for somebody else.
    :raises Busy: somebody else has it; says who.
    """
    name = lock_name(what)
    end = clock() + timeout
    pause = 0.05
    first: tuple[int, float] | None = None
    while True:
        key = add(session, name)
        if key is not None:
            lock = Lock(session, what, key, clock)
            try:
                lock.sign()
            except BaseException:
                with contextlib.suppress(FerryError):
                    remove(session, key)
                raise
            return lock
        found = holder(session, name)
        if found is not None:
            if first is None or first[0] != found.key:
                first = (found.key, clock())
            if _left_over(found, server_time(session), clock() - first[1]):
                remove(session, found.key)
                continue
            if clock() >= end:
                raise Busy(
                    f"Somebody else works on {what}.",
                    step="take the lock",
                    said=found.owner or "the lock does not say who",
                    next_command=f"run it again; a lock that is left over is broken after {LEASE:.0f} seconds",
                )
        sleep(pause)
        pause = min(1.0, pause * 1.5)


@contextlib.contextmanager
def locked(session: Session, what: str, **kwargs: Any) -> Iterator[Lock]:
    """Hold the lock of C(what) within the block; see acquire()."""
    lock = acquire(session, what, **kwargs)
    try:
        yield lock
    finally:
        with contextlib.suppress(FerryError):  # what cannot be removed now is broken by its age
            remove(session, lock.key)
