# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What vCenter itself says of a move before it is made, where it can be asked.

Vendor reference: vSphere Web Services API, VirtualMachineProvisioningChecker (CheckRelocate_Task, QueryVMotionCompatibilityEx_Task).
"""

from __future__ import annotations

from typing import Any, Iterable, Sequence

from ..errors import FerryError, ServerError
from .client import Session, fault_text
from .move_checks import Check
from .tasks import wait_task

#: Seconds that a check may take.
TIMEOUT = 120.0
#: Faults of servers that do not have the call.
_ABSENT = frozenset({"NotSupported", "NotImplemented", "MethodNotFound", "InvalidRequest", "ManagedObjectNotFound"})


def _judged(results: Any, id_: str) -> Check:
    errors: list[str] = []
    warnings: list[str] = []
    for result in results or ():
        errors += [fault_text(e) for e in result.error or ()]
        warnings += [fault_text(w) for w in result.warning or ()]
    said = "; ".join(dict.fromkeys(errors)) or "; ".join(f"warning: {w}" for w in dict.fromkeys(warnings)) or "nothing against it"
    return Check(id_, not errors, said)


def _ask(session: Session, id_: str, name: str, *args: Any) -> Check:
    """One check of the server; skipped where it does not have it or does not answer."""
    checker = session.content.vmProvisioningChecker
    if checker is None:
        return Check(id_, True, "not asked: this server has no provisioning checker", skipped=True)
    step = f"ask vCenter ({name})"
    try:
        task = session.call(getattr(checker, name), *args, step=step)
        return _judged(wait_task(session, task, step=step, timeout=TIMEOUT), id_)
    except ServerError as e:
        fault = e.details.get("fault")
        if fault in _ABSENT or e.code == "timeout" or fault == "NoPermission":
            return Check(id_, True, f"not asked: {e.said or e.message}", skipped=True)
        if fault is not None:
            return Check(id_, False, e.said or e.message)
        raise


def check_relocate(session: Session, vm: Any, spec: Any) -> Check:
    """CheckRelocate_Task of the managed object C(vm) and a RelocateSpec."""
    return _ask(session, "server.relocate", "CheckRelocate_Task", vm, spec, None)


def check_vmotion(session: Session, vm: Any, host: Any) -> Check:
    """QueryVMotionCompatibilityEx_Task of a VM and a host."""
    return _ask(session, "server.vmotion", "QueryVMotionCompatibilityEx_Task", [vm], [host])


def refused_by(checks: Iterable[Check]) -> Sequence[str]:
    """What the failed ones of C(checks) say."""
    return [f"{c.id}: {c.detail}" for c in checks if not c.passed]


def not_possible(vm: str, method: str, checks: Iterable[Check]) -> FerryError:
    """The error for a plan that has failed checks."""
    reasons = refused_by(checks)
    return ServerError(
        f"The VM cannot be moved ({method}): {'; '.join(reasons)}.",
        code="checks_failed",
        vm=vm,
        step="check the move",
        left="nothing was changed",
        failed=[c.id for c in checks if not c.passed],
    )
