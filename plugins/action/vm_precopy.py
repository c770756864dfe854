# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs ferry.vmware.vm_disk_copy again and again until its last delta fits the downtime, and tells after each cycle.

The loop is here because Ansible has none for it: C(until) repeats one task blindly and calls each round a failure, and a
file of tasks that includes itself nests one level deeper with every cycle.
"""

from __future__ import annotations

import os
import re
import time
from typing import Any, Mapping

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.ferry.vmware.plugins.module_utils.disk.errors import BadInput
from ansible_collections.ferry.vmware.plugins.module_utils.disk.forecast import (
    DIVERGING,
    GO_ON,
    Cycle,
    Forecast,
    Terms,
    cycle_of,
    epoch,
    forecast,
)
from ansible_collections.ferry.vmware.plugins.plugin_utils.cycles import copy_row, cycle_line, terms_line, totals
from ansible_collections.ferry.vmware.plugins.plugin_utils.long_task import Stopped
from ansible_collections.ferry.vmware.plugins.plugin_utils.progress_lines import printable
from ansible_collections.ferry.vmware.plugins.plugin_utils.report.live import Live

display = Display()

COPY = "ferry.vmware.vm_disk_copy"
#: What goes to the copy as it is.
HANDED_ON = frozenset(
    (
        "attach",
        "auth",
        "auth_type",
        "bad_builds",
        "budget",
        "ca_cert",
        "ca_path",
        "chunk_size",
        "cloud",
        "disks",
        "hostname",
        "instance",
        "interface",
        "lease_seconds",
        "nbd_tls_certificates",
        "ledger",
        "password",
        "patience",
        "port",
        "progress_interval",
        "quiesce",
        "region_name",
        "root_helper",
        "take_over",
        "transport",
        "username",
        "validate_certs",
        "vddk",
        "verify",
        "vm",
        "workers",
    )
)
OWN = frozenset(
    (
        "diverging_after",
        "downtime_budget",
        "interval",
        "keep_on",
        "landing_seconds",
        "max_cycles",
        "max_failures",
        "min_cycles",
        "on_diverging",
        "outside_sample",
        "shutdown_seconds",
        "until",
        "verify_first",
        "verify_whole",
    )
)
#: Failures that may be over by the next try: a server that is away or busy, a copy whose process was killed.
PASSING = (
    "fault",
    "lease",
    "not_consolidated",
    "protocol",
    "quiesce",
    "server",
    "snapshot_gone",
    "source",
    "taken",
    "task",
    "timeout",
    "unreachable",
    "vanished",
)


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _VALID_ARGS = HANDED_ON | OWN
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(None, task_vars)
        args = dict(self._task.args)
        for name in ("vm", "disks"):
            if not args.get(name):
                raise AnsibleActionFail(f"missing required arguments: {name}")
        if any(isinstance(d, Mapping) and (d.get("dest") or {}).get("image") for d in args["disks"]):
            raise AnsibleActionFail(
                "dest.image has no cycles: Glance changes no image's data. Copy into volumes, or use ferry.vmware.vm_disk_copy."
            )
        terms = self._terms(args)
        tolerated = int(_number(args, "max_failures", 2))
        self._parent = os.getppid()
        self._vars = task_vars or {}
        self._copy_args = {k: v for k, v in args.items() if k in HANDED_ON and v is not None}
        self._subject = self._name(str(args["vm"]))
        self._live = None if self._task.check_mode or self._task.no_log else Live.of(self._vars, self._templar)
        if self._task.check_mode:
            return {**result, **self._plan(terms)}
        return {**result, **self._precopy(terms, tolerated)}

    def _terms(self, args: Mapping[str, Any]) -> Terms:
        on_diverging = str(args.get("on_diverging") or "stop")
        if on_diverging not in ("stop", "go_on"):
            raise AnsibleActionFail(f"value of on_diverging must be one of: stop, go_on, got: {on_diverging[:40]}")
        keep = _bool(args.get("keep_on"))
        try:
            until = epoch(str(args["until"])) if args.get("until") else None
        except BadInput as e:
            raise AnsibleActionFail(f"until: {e}") from e
        if keep and until is None:
            raise AnsibleActionFail("keep_on needs until: it says when to stop.")
        return Terms(
            budget=_number(args, "downtime_budget", 300),
            shutdown=_number(args, "shutdown_seconds", 30),
            landing=_number(args, "landing_seconds", 0),
            outside=min(100.0, _number(args, "outside_sample", 1)) / 100,
            whole=_bool(args.get("verify_whole")),
            interval=_number(args, "interval", 60),
            until=until,
            keep=keep,
            most=max(1, int(_number(args, "max_cycles", 100))),
            least=int(_number(args, "min_cycles", 1)),
            patience=max(1, int(_number(args, "diverging_after", 3))),
            stubborn=on_diverging == "go_on",
        )

    # -- the loop -----------------------------------------------------------------------------------------------------

    def _precopy(self, terms: Terms, tolerated: int) -> dict[str, Any]:
        cycles: list[Cycle] = []
        rows: list[dict[str, Any]] = []
        out: dict[str, Any] = {"changed": False, "cycles": rows, "totals": [], "remarks": [], "disks": [], "failures": 0}
        snapshot: float | None = None
        in_a_row = 0
        self._say(terms_line(terms))
        if self._live is not None:
            self._live.phase("precopy")
        while True:
            began, clock = time.monotonic(), time.time()
            done = self._copy(first=not cycles)
            if done.get("failed") or done.get("unreachable"):
                in_a_row += 1
                out["failures"] += 1
                out["changed"] = out["changed"] or bool(done.get("changed"))
                code = str((done.get("failure") or {}).get("code") or "")
                if in_a_row > tolerated or code not in PASSING or not cycles:
                    return {**done, **{k: v for k, v in out.items() if k != "disks"}, "changed": out["changed"]}
                self._say(f"cycle {len(cycles) + 1} failed ({printable(done.get('msg') or code, 200)}); it is tried again")
                self._pause(max(1.0, terms.interval))
                continue  # the ledger still has the last good state: the next delta holds this one too
            in_a_row = 0
            cycle = cycle_of(done.get("disks") or [], time.monotonic() - began, None if snapshot is None else began - snapshot)
            snapshot = began
            cycles.append(cycle)
            told = forecast(cycles, terms, time.time())
            self._remark(done.get("remarks") or [], out["remarks"])
            rows.append(copy_row(len(cycles), clock, cycle, told, done.get("disks") or []))
            out.update(disks=done.get("disks") or [], totals=totals(rows), changed=out["changed"] or bool(done.get("changed")))
            self._say(cycle_line(rows[-1], told, terms))
            if self._live is not None:
                self._live.cycles(rows, told.as_dict())
            if told.verdict != GO_ON:
                if terms.keep and terms.until is not None:
                    self._pause(terms.until - time.time())
                return {**out, **self._verdict(told)}
            self._pause(told.wait)

    def _remark(self, new: list[Any], known: list[str]) -> None:
        """Each remark of the copy is said once."""
        for text in map(str, new):
            if text not in known:
                known.append(text)
                self._say(printable(text, 300))

    def _verdict(self, told: Forecast) -> dict[str, Any]:
        if told.verdict == DIVERGING:
            self._say(told.reason)
        return {"outcome": told.verdict, "reason": told.reason, "forecast": told.as_dict()}

    def _plan(self, terms: Terms) -> dict[str, Any]:
        """One round of the copy in check mode, and what would come after it."""
        done = self._copy()
        if done.get("failed") or done.get("unreachable"):
            return done
        done.update(cycles=[], failures=0, outcome="planned", reason=terms_line(terms), forecast=None)
        return done

    def _copy(self, first: bool = False) -> dict[str, Any]:
        """One cycle, by the action that stands for the module; its lines, its lease and its resumption come with it."""
        task = self._task.copy()
        task.action = COPY
        task.args = dict(self._copy_args)
        if first and self._task.args.get("verify_first"):
            task.args["verify"] = self._task.args["verify_first"]
        action = self._shared_loader_obj.action_loader.get(
            COPY,
            task=task,
            connection=self._connection,
            play_context=self._play_context,
            loader=self._loader,
            templar=self._templar,
            shared_loader_obj=self._shared_loader_obj,
        )
        done: dict[str, Any] = action.run(task_vars=self._vars)
        self._subject = printable((getattr(action, "_status", None) or {}).get("name") or self._subject)
        return done

    def _name(self, vm: str) -> str:
        """Whom the lines speak of, until the copy has told the VM's name: nobody knows a VM by its MoRef or UUID."""
        known = not re.fullmatch(r"vm-\d+|[0-9a-fA-F-]{36}", vm)
        return printable(vm.rpartition("/")[2] if known else self._vars.get("inventory_hostname") or vm)

    def _say(self, text: str) -> None:
        if not self._task.no_log:
            display.display(f"  {self._subject}: {text}")

    def _pause(self, seconds: float) -> None:
        """Sleep, and notice the death of ansible-playbook within half a second."""
        end = time.monotonic() + seconds
        while (rest := end - time.monotonic()) > 0:
            if os.getppid() != self._parent:
                raise Stopped("ansible-playbook is gone")
            if self._live is not None:
                self._live.beat()
            time.sleep(min(rest, 0.5))  # the interval between cycles, in pieces


def _number(args: Mapping[str, Any], name: str, default: float) -> float:
    """A number that is not negative; templates hand over strings."""
    value = args.get(name)
    if value is None or value == "":
        return default
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = -1.0
    if not 0 <= found <= 86400 * 365 * 10:
        raise AnsibleActionFail(f"{name} must be a number of 0 or more, got {str(value)[:50]!r}.")
    return found


def _bool(value: Any) -> bool:
    return value if isinstance(value, bool) else str(value).lower() in ("yes", "true", "on", "1")
