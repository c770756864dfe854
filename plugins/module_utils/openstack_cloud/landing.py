# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The work of the modules landing_plan and server_ports: parameters in, result out."""

from __future__ import annotations

from typing import Any, Mapping

from ..errors import BadInput
from . import formats, ports
from .client import connect
from .finding import plain
from .options import PER_VM, Options, asked
from .plan import plan
from .target import read_target

#: Errors written out in the message of a failed plan; all of them are in its result.
SHOWN = 20


def options_of(params: Mapping[str, Any]) -> Options:
    """The options of a wave out of a module's parameters."""
    given = (*PER_VM, "constraints", "port_policy", "rehearsal")
    return Options(**{k: params[k] for k in given if params.get(k) is not None})


def plan_wave(params: Mapping[str, Any]) -> dict[str, Any]:
    """Read the target and plan the landing of C(vms). Changes nothing.

    :raises BadInput: there are errors and C(fail) is set; its C(partial) has the whole plan.
    """
    options = options_of(params)
    vms = params["vms"]
    sources = {str(vm["instance_uuid"]).lower() for vm in vms if vm.get("instance_uuid")}
    wanted = asked(vms, options)
    target = read_target(connect(params), wanted, sources=sources)
    if wanted.images:
        hypervisors = [str((vm.get("options") or {}).get("hypervisor") or options.hypervisor) for vm in vms]
        vms = formats.looked_at(vms, hypervisors)
    result: dict[str, Any] = plain({"changed": False, **plan(vms, target, options)})
    if result["errors"] and params.get("fail", True):
        lines = [e["text"] for e in result["errors"]]
        more = f" … and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
        error = BadInput(
            f"The wave cannot land as planned; {len(lines)} errors, nothing was changed.",
            code="plan",
            step="plan the landing",
            errors=result["errors"],
        )
        error.partial = {**result, "summary": "; ".join(lines[:SHOWN]) + more}
        error.message = error.message[:-1] + ": " + "; ".join(lines[:SHOWN]) + more
        raise error
    return result


def ensure_ports(params: Mapping[str, Any], *, check: bool = False) -> dict[str, Any]:
    """Ports as they should be, see ports.ensure()."""
    result = ports.ensure(connect(params), params.get("server"), params["ports"], check=check)
    before, after = result.pop("before"), result.pop("after")
    return {**result, "diff": {"before": before, "after": after}}
