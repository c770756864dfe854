# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Carrying a plan out: wave after wave, the moves of one wave at the same time; and maintenance mode.

Vendor reference: vSphere Web Services API, HostSystem.EnterMaintenanceMode_Task, ExitMaintenanceMode_Task.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Sequence

from ..errors import BadInput, FerryError, ServerError
from .client import Session
from .find import describe
from .move import move
from .move_checks import Forbids
from .move_plan import Wish
from .properties import moref_of, of_objects
from .site import Site
from .tasks import wait_task
from .tree import shown
from .waves import Move

ForbidsOf = Callable[[Site], Forbids]


def _elsewhere(session: Session, planned: Move) -> str | None:
    """The name of the host that somebody else has moved the VM to since it was planned; None where nobody has."""
    rows = of_objects(session, [session.managed("VirtualMachine", planned.vm)], {"VirtualMachine": ("runtime.host",)}, step="read the VM")
    ref = rows[0].props.get("runtime.host") if rows else None
    if ref is None or moref_of(ref) in (planned.source, planned.target):
        return None
    named = of_objects(session, [ref], {"HostSystem": ("name",)}, step="read the host")
    return shown(str(named[0].props["name"])) if named else moref_of(ref)


def _one(session: Session, planned: Move, timeout: float, reserve: float, forbids: ForbidsOf | None) -> dict[str, Any]:
    """Make one move; its outcome, never an error."""
    result = {**planned.as_dict(), "state": "moved", "said": None, "now": planned.target_name}
    try:
        found = describe(session, [planned.vm])
        if not found:
            return {**result, "state": "gone", "said": "somebody has removed it from vCenter meanwhile", "now": None}
        elsewhere = _elsewhere(session, planned)
        if elsewhere is not None:
            raise BadInput(f"Somebody has moved it to {elsewhere} meanwhile.", step="relocate the VM", left=elsewhere)
        store = next(iter(planned.stores.values()), None)
        wish = Wish(method=planned.method, host=planned.target, datastore=store, timeout=timeout, reserve_percent=reserve)
        outcome = move(session, found[0], wish, forbids=forbids)
        if not outcome["changed"]:
            result["state"] = "was there"
    except FerryError as e:
        result.update(state="failed", said=str(e), now=e.left or planned.source_name)
    return result


def carry_out(
    session: Session,
    moves: Sequence[Move],
    *,
    timeout: float = 3600.0,
    reserve_percent: float = 5.0,
    stop: Callable[[], None] | None = None,
    forbids: ForbidsOf | None = None,
) -> list[dict[str, Any]]:
    """Make the moves; a wave begins when all of the one before have ended well.

    :param timeout: seconds for each move.
    :param forbids: what constraints say, asked once more before each move: others move VMs as well.
    :param stop: is called between two waves and raises where the work is to end.
    :raises ServerError: code moves_failed; C(partial) has C(moves), each with its state: moved, was there, gone, failed, not begun.
    """
    done: list[dict[str, Any]] = []
    for number in sorted({m.wave for m in moves}):
        if stop is not None:
            stop()
        wave = [m for m in moves if m.wave == number]
        with ThreadPoolExecutor(max_workers=max(1, min(16, len(wave)))) as pool:
            waiting = [pool.submit(_one, session, m, timeout, reserve_percent, forbids) for m in wave]
            done += [w.result() for w in waiting]
        failed = [d for d in done if d["state"] == "failed"]
        if failed:
            left = [{**m.as_dict(), "state": "not begun", "said": None, "now": m.source_name} for m in moves if m.wave > number]
            error = ServerError(
                f"{len(failed)} of {len(moves)} moves failed: " + "; ".join(f"{d['vm']}: {d['said']}" for d in failed[:5]),
                code="moves_failed",
                step="move the VMs",
                left=f"{len(done) - len(failed)} VMs were moved, {len(left)} moves were not begun",
                next_command="run it again: it goes on from where the VMs are now",
            )
            error.partial = {"moves": [*done, *left]}
            raise error
    return done


def in_maintenance(session: Session, host: str) -> bool:
    """Whether the host is in maintenance mode now."""
    rows = of_objects(session, [session.managed("HostSystem", host)], {"HostSystem": ("runtime.inMaintenanceMode",)}, step="read the host")
    return bool(rows and rows[0].props.get("runtime.inMaintenanceMode"))


def maintenance(session: Session, host: str, name: str, *, enter: bool, timeout: float, powered_off: bool = False) -> bool:
    """Put the host into maintenance mode, or take it out; whether that changed anything.

    :param powered_off: whether DRS is to take VMs that are off elsewhere; this collection has moved them already where it was to.
    :raises ServerError: it is not so within C(timeout) seconds, or vCenter refused.
    """
    if in_maintenance(session, host) == enter:
        return False
    ref = session.managed("HostSystem", host)
    step = "enter maintenance mode" if enter else "leave maintenance mode"
    seconds = max(1, int(timeout))
    if enter:
        task = session.call(ref.EnterMaintenanceMode_Task, seconds, powered_off, None, step=step)
    else:
        task = session.call(ref.ExitMaintenanceMode_Task, seconds, step=step)
    try:
        wait_task(session, task, step=step, timeout=timeout + 30.0)
    except ServerError as e:
        if in_maintenance(session, host) == enter:
            return True
        raise ServerError(
            f"The host {name} did not {step}.",
            code=e.code,
            step=step,
            said=e.said or e.message,
            left="its VMs are moved; the host is not in maintenance mode" if enter else "the host is still in maintenance mode",
            next_command="see which VMs keep it, and run it again",
            host=name,
        ) from e
    return True
