# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A plan that was saved, read again, and what has drifted since, told all at once before anything starts."""

from __future__ import annotations

import datetime
import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ansible_collections.ferry.vmware.plugins.module_utils.concerns import CRITICAL
from ansible_collections.ferry.vmware.plugins.module_utils.disk.errors import BadInput
from ansible_collections.ferry.vmware.plugins.module_utils.transfer.lasting import RUNNER_VARIABLE
from ansible_collections.ferry.vmware.plugins.plugin_utils.plan.build import VERSION
from ansible_collections.ferry.vmware.plugins.plugin_utils.progress_lines import printable, size

#: Bytes of a plan, VMs in one, and entries of any list in it, at most.
_MAX_FILE, _MAX_VMS, _MAX_ROWS = 256 << 20, 20_000, 10_000
#: What of a VM is held to, with its words; what our own steps change at it (power) is left out once it is under way.
_HELD = (
    ("esxi", "its host"),
    ("power", "its power"),
    ("strategy", "the strategy"),
    ("conversion_host", "the conversion host"),
    ("flavor", "the flavor"),
)
_NEXT = "make a new plan with ferry.vmware.plan, look at it, and run this again with it"


@dataclass(frozen=True)
class Drift:
    """One difference; C(vm) None: of the whole wave. C(was), C(now): what people read."""

    vm: str | None
    field: str
    was: str
    now: str
    text: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def load(path: str) -> dict[str, Any]:
    """The plan in C(path), checked as far as C(compare) uses it.

    :raises BadInput: it is not there, damaged, of another version, or no plan.
    """
    step = "read the plan"
    try:
        with open(path, "rb") as f:
            if not stat.S_ISREG(os.fstat(f.fileno()).st_mode):
                raise BadInput("The plan is no file.", step=step, path=path)
            data = f.read(_MAX_FILE + 1)
    except OSError as e:
        raise BadInput("The plan cannot be read.", step=step, said=e.strerror, path=path, next_command=_NEXT) from e
    try:
        plan = json.loads(data.decode("utf-8")) if len(data) <= _MAX_FILE else None
    except (ValueError, RecursionError) as e:
        raise BadInput(f"The plan {path} is damaged: it is no JSON.", step=step, said=e, next_command=_NEXT) from e
    if not isinstance(plan, dict) or "version" not in plan or "wave" not in plan:
        raise BadInput(f"{path} is no plan of a wave.", step=step, next_command=_NEXT)
    if plan["version"] != VERSION:
        shown = printable(plan["version"], 20)
        raise BadInput(f"The plan is of version {shown}, this program knows {VERSION}.", step=step, path=path, next_command=_NEXT)
    problem = _problem(plan)
    if problem:
        raise BadInput(f"The plan {path} is damaged: {problem}.", step=step, next_command=_NEXT)
    return plan


def _problem(plan: Mapping[str, Any]) -> str | None:
    """What is missing of a plan, or is of another kind."""
    for name, kind in (("vms", list), ("wave", list), ("concerns", list), ("quotas", list), ("made", str), ("vcenter", dict)):
        if not isinstance(plan.get(name), kind):
            return f"{name} is missing"
    if len(plan["vms"]) > _MAX_VMS or len(plan["wave"]) > _MAX_VMS:
        return "it has too many VMs"
    try:
        made_at(plan)
    except ValueError:
        return "made is no time"
    if not all(isinstance(name, str) for name in plan["wave"]) or not _dicts(plan["concerns"]):
        return "wave or concerns hold something else"
    for n, vm in enumerate(plan["vms"]):
        if not isinstance(vm, dict) or not isinstance(vm.get("name"), str) or not isinstance(vm.get("host"), str):
            return f"vms[{n}] is no VM"
        for name in ("disks", "concerns", "ports", "volumes", "networks"):
            rows = vm.get(name)
            if not isinstance(rows, list) or len(rows) > _MAX_ROWS or (name != "networks" and not _dicts(rows)):
                return f"{name} of vms[{n}] is none"
        if not all(isinstance(d.get("key"), str) and isinstance(d.get("capacity"), int) for d in vm["disks"]):
            return f"a disk of vms[{n}] is none"
    return None


def _dicts(rows: Iterable[Any]) -> bool:
    return all(isinstance(row, dict) for row in rows)


def made_at(plan: Mapping[str, Any]) -> datetime.datetime:
    """When the plan was made.

    :raises ValueError: that is no time with a zone.
    """
    found = datetime.datetime.fromisoformat(str(plan["made"]))
    if found.tzinfo is None:
        raise ValueError("no zone")
    return found


def newer_sources(plan: Mapping[str, Any], sources: Sequence[str]) -> list[str]:
    """Those of the inventory's C(sources) (files, or folders of files) that were changed after the plan was made.

    Where ansible-runner or AWX runs us it writes the inventory anew for each job, into the job's own folder: that says nothing.
    """
    made = made_at(plan).timestamp()
    artifacts = os.environ.get(RUNNER_VARIABLE) or ""
    job = os.path.join(os.path.dirname(os.path.dirname(artifacts)), "inventory") if artifacts else ""
    own = [s for s in sources if not (job and os.path.commonpath([os.path.abspath(s), job]) == job)]
    return [source for source in own if _changed(source) > made + 1]  # the plan tells whole seconds


def _changed(path: str) -> float:
    """The time of the last change below C(path), in seconds since the epoch; 0 for what is no path (a list of hosts)."""
    times = [0.0]
    for name in _files(path):
        try:
            times.append(os.stat(name).st_mtime)
        except OSError:
            continue  # it went away in this moment
    return max(times)


def _files(path: str) -> Iterator[str]:
    if os.path.isfile(path):
        yield path
    elif os.path.isdir(path):
        for folder, _folders, names in os.walk(path):
            for name in names[:_MAX_ROWS]:
                yield os.path.join(folder, name)


def compare(old: Mapping[str, Any], new: Mapping[str, Any], part: bool = False) -> list[Drift]:
    """Everything in which the wave of C(new) is another than in C(old).

    :param part: C(new) is a part of the wave only, such as a slice: VMs that are not in it are not missed.
    :raises BadInput: C(old) is of another vCenter.
    """
    was, now = (str((plan.get("vcenter") or {}).get("instance") or "") for plan in (old, new))
    if was and now and was != now:
        raise BadInput(
            "The plan was made for another vCenter.", step="compare with the plan", said=f"{was}, this one is {now}", next_command=_NEXT
        )
    before, after = ({vm["host"]: vm for vm in plan["vms"]} for plan in (old, new))
    out = [
        _drift(host, "wave", "in the plan", "gone", f"{host} is in the plan, and no longer in the wave")
        for host in before
        if host not in after and not part
    ]
    out += [
        _drift(host, "wave", "not in the plan", "new", f"{host} is in the wave, and not in the plan")
        for host in after
        if host not in before
    ]
    for host, vm in after.items():
        if host in before:
            out += _of_vm(before[host], vm)
    out += _new_concerns(None, old["concerns"], new["concerns"])
    return out


def _drift(vm: str | None, name: str, was: Any, now: Any, text: str) -> Drift:
    return Drift(vm, name, printable(was, 200), printable(now, 200), printable(text, 400))


def _of_vm(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Drift]:
    name = str(new["host"])
    if (old.get("source") or old.get("moref")) != (new.get("source") or new.get("moref")):
        text = f"{name} is another VM: it was {old.get('moref')} ({old.get('source')}), it is {new.get('moref')} ({new.get('source')})"
        yield _drift(name, "vm", old.get("source"), new.get("source"), text)
        return
    for key, words in _HELD:
        # Our own steps have shut it down, or will start it.
        if key in ("power", "esxi") and new.get("state"):
            continue
        if old.get(key) != new.get(key):
            yield _drift(name, key, old.get(key), new.get(key), f"{name}: {words} was {old.get(key)}, it is {new.get(key)}")
    yield from _of_disks(name, old["disks"], new["disks"])
    yield from _of_list(name, "networks", old["networks"], new["networks"])
    yield from _of_list(name, "ports", [_card(p) for p in old["ports"]], [_card(p) for p in new["ports"]])
    yield from _new_concerns(name, old["concerns"], new["concerns"])


def _card(port: Mapping[str, Any]) -> str:
    return f"{port.get('nic')} in {port.get('network')} as {port.get('mac')}"


def _of_list(name: str, what: str, old: Sequence[Any], new: Sequence[Any]) -> Iterator[Drift]:
    if list(old) != list(new):
        was, now = (", ".join(map(str, rows)) or "none" for rows in (old, new))
        yield _drift(name, what, was, now, f"{name}: {what} were {was}, they are {now}")


def _of_disks(name: str, old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> Iterator[Drift]:
    before, after = {d["key"]: d for d in old}, {d["key"]: d for d in new}
    for key, disk in before.items():
        if key not in after:
            yield _drift(name, "disk", disk.get("label"), "gone", f"{name}: {disk.get('label')} ({size(disk['capacity'])}) is gone")
    for key, disk in after.items():
        label = disk.get("label")
        was = before.get(key)
        if was is None:
            yield _drift(name, "disk", "not there", label, f"{name}: {label} ({size(disk['capacity'])}) is new")
            continue
        if was["capacity"] != disk["capacity"]:
            text = f"{name}: {label} had {size(was['capacity'])}, it has {size(disk['capacity'])}"
            yield _drift(name, "disk", was["capacity"], disk["capacity"], text)
        for fact in ("datastore", "transport"):
            if was.get(fact) != disk.get(fact):
                text = f"{name}: the {fact} of {label} was {was.get(fact)}, it is {disk.get(fact)}"
                yield _drift(name, fact, was.get(fact), disk.get(fact), text)
        types = [((d.get("volume") or {}).get("type"), (d.get("volume") or {}).get("size_gib")) for d in (was, disk)]
        if types[0] != types[1]:
            shown = [f"{size_gib} GiB of type {kind or 'the default'}" for kind, size_gib in types]
            yield _drift(name, "volume", shown[0], shown[1], f"{name}: the volume of {label} was to have {shown[0]}, now {shown[1]}")


def _new_concerns(name: str | None, old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> Iterator[Drift]:
    """Critical ones that the plan did not have: by id and what each is about, since their words hold figures."""
    known = {_about(c) for c in old if c.get("category") == CRITICAL}
    for concern in new:
        if concern.get("category") == CRITICAL and _about(concern) not in known:
            where = f"{name}: " if name else ""
            text = f"{where}new and critical: {concern.get('label')}: {concern.get('assessment')}"
            yield _drift(name, "concern", "none", concern.get("id"), text)


def _about(concern: Mapping[str, Any]) -> tuple[Any, ...]:
    return concern.get("id"), concern.get("disk"), concern.get("device")
