# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Binding machines (ESXi hosts, VMs) to the definitions of an inventory.

The binding is two custom attributes of the machine: C(ferry.definition) and C(ferry.group). It is written under two locks
(attributes.py), that of the definition and then that of the machine, and read again under them. So a definition never has two
machines, nor a machine two definitions, whoever races.
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass, field, replace
from typing import Any, Callable, Mapping, Sequence

from ..errors import BadInput, Busy, ServerError, bounded
from . import attributes
from .client import Session
from .properties import of_objects
from .site import read_site, with_devices
from .site_model import Host, Site, Vm
from .tag_names import tags_of

DEFINITION, GROUP = "ferry.definition", "ferry.group"
KINDS = {"host": "HostSystem", "vm": "VirtualMachine"}
GIB = 1 << 30
#: A value of a custom attribute may be longer, but names of inventory hosts that are cannot be read anyway.
LONGEST = 200
_STEP = "register the machine"


@dataclass(frozen=True)
class Model:
    """What a machine has to have. Patterns are those of a shell (C(*), C(?)), in any letter case. C(disks_gb): sizes, each of a disk
    of its own. C(attributes): patterns for custom attributes."""

    min_cpus: int = 0
    min_memory_mb: int = 0
    name: str | None = None
    vendor: str | None = None
    model: str | None = None
    version: str | None = None
    cluster: str | None = None
    guest_id: str | None = None
    datastores: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    disks_gb: tuple[float, ...] = ()
    attributes: dict[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Request:
    """What was asked for. C(kind): host or vm. C(machine): as the user named it; None: the best that fits.
    C(tags): names of tags by MoRef, read where the model wants any."""

    kind: str
    group: str
    definition: str
    model: Model = field(default_factory=Model)
    machine: str | None = None
    present: bool = True
    tags: Mapping[str, frozenset[str]] = field(default_factory=dict)


def _like(text: str, pattern: str) -> bool:
    # a bracket is what it looks like: there are names with one
    return fnmatch.fnmatchcase(text.casefold(), pattern.casefold().replace("[", "[[]"))


def misfits(site: Site, machine: Host | Vm, model: Model, tags: Mapping[str, frozenset[str]] | None = None) -> list[str]:
    """Where the machine is not what the model wants. Pure.

    :param tags: names of tags by MoRef.
    """
    found: list[str] = []

    def pattern(what: str, wanted: str | None, has: str | None) -> None:
        if wanted and not _like(has or "", wanted):
            found.append(f"{what} is {has or 'unknown'}, wanted {wanted}")

    is_host = isinstance(machine, Host)
    cpus = machine.cores if isinstance(machine, Host) else machine.cpus
    memory = machine.memory_mb_total if isinstance(machine, Host) else machine.memory_mb
    if cpus < model.min_cpus:
        found.append(f"{cpus} CPUs, at least {model.min_cpus} wanted")
    if memory < model.min_memory_mb:
        found.append(f"{memory} MiB of memory, at least {model.min_memory_mb} wanted")
    pattern("name", model.name, machine.name)
    if isinstance(machine, Host):
        pattern("vendor", model.vendor, machine.vendor)
        pattern("model", model.model, machine.model)
        pattern("version", model.version, machine.version)
        pattern("cluster", model.cluster, machine.cluster_name)
        if not machine.connected:
            found.append("not connected")
    else:
        pattern("guest id", model.guest_id, machine.guest_id)
        here = site.hosts.get(machine.host or "")
        pattern("cluster", model.cluster, here.cluster_name if here else None)
        if machine.template:
            found.append("a template")
        found += _disks(machine, model)
    stores = {site.datastores[d].name for d in machine.datastores if d in site.datastores}
    found += [f"datastore {d} is not {'there' if is_host else 'used by it'}" for d in model.datastores if d not in stores]
    networks = site.network_names(machine.networks)
    found += [f"network {n} is not {'there' if is_host else 'used by it'}" for n in model.networks if n not in networks]
    for name, wanted in sorted(model.attributes.items()):
        pattern(f"attribute {name}", wanted, machine.custom.get(name))
    has = (tags or {}).get(machine.moref, frozenset())
    found += [f"tag {name} is missing" for name in model.tags if name not in has]
    return found


def _disks(vm: Vm, model: Model) -> list[str]:
    """Each wanted size needs a disk of its own that is at least as large: compared largest with largest."""
    has = sorted(vm.disks, reverse=True)
    wanted = sorted(model.disks_gb, reverse=True)
    if len(has) < len(wanted):
        return [f"{len(has)} disks, {len(wanted)} wanted"]
    small = [(h, w) for h, w in zip(has, wanted, strict=False) if h < w * GIB]
    return [f"a disk of {h / GIB:.4g} GiB, at least {w:g} wanted" for h, w in small[:1]]


def machines(site: Site, kind: str) -> Sequence[Host | Vm]:
    """All hosts or all VMs, by name."""
    found: list[Host | Vm] = list(site.hosts.values()) if kind == "host" else list(site.vms.values())
    return sorted(found, key=lambda m: (m.name, m.moref))


def holders(site: Site, definition: str) -> list[Host | Vm]:
    """The machines that carry the definition, hosts and VMs."""
    return [m for kind in KINDS for m in machines(site, kind) if m.custom.get(DEFINITION) == definition]


def candidates(site: Site, request: Request) -> list[dict[str, Any]]:
    """Every machine of the kind: those that fit and are free first, the smallest first, so that large ones stay free for what needs
    them; then the others by name, with the reasons."""
    found = []
    for m in machines(site, request.kind):
        reasons = misfits(site, m, request.model, request.tags)
        other = m.custom.get(DEFINITION)
        if other and other != request.definition:
            reasons.append(f"registered as {bounded(other, 120)}")
        size = (m.cores, m.memory_mb_total) if isinstance(m, Host) else (m.cpus, m.memory_mb)
        found.append((bool(reasons), size if not reasons else (0, 0), m, reasons))
    found.sort(key=lambda f: (f[0], f[1], f[2].name, f[2].moref))
    return [{"name": m.name, "moref": m.moref, "path": m.path, "fits": not bad, "reasons": reasons} for bad, _size, m, reasons in found]


def _shown(machine: Host | Vm, site: Site, request: Request) -> dict[str, Any]:
    return {
        "kind": "host" if isinstance(machine, Host) else "vm",
        "name": machine.name,
        "moref": machine.moref,
        "path": machine.path,
        "uuid": None if isinstance(machine, Host) else machine.uuid,
        "misfits": misfits(site, machine, request.model, request.tags),
    }


@dataclass
class Decision:
    """C(target): the machine that is to carry the definition. C(release): those that carry it and are not to."""

    target: Host | Vm | None
    release: list[Host | Vm]
    candidates: list[dict[str, Any]]
    warnings: list[str] = field(default_factory=list)


def _no_candidate(request: Request, found: list[dict[str, Any]]) -> BadInput:
    listed = "; ".join(f"{c['name']}: {', '.join(c['reasons'])}" for c in found[:8])
    more = f"; and {len(found) - 8} more" if len(found) > 8 else ""
    error = BadInput(
        f"No machine fits the definition {request.definition} and is free: {listed or 'there is none'}{more}.",
        code="no_candidate",
        step=_STEP,
        next_command="release a machine, or change the model",
    )
    error.partial = {"candidates": found, "machine": None}
    return error


def decide(site: Site, request: Request) -> Decision:
    """What is to be done for C(request). Pure.

    :raises BadInput: code no_candidate, does_not_fit or duplicate, each with the reasons.
    """
    now = holders(site, request.definition)
    found = candidates(site, request)
    wanted: Host | Vm | None = None
    if request.machine is not None:
        wanted = site.host(request.machine) if request.kind == "host" else site.vm(request.machine)
    if not request.present:
        return Decision(None, [m for m in now if wanted is None or m.moref == wanted.moref], found)
    if len(now) > 1:
        names = ", ".join(f"{m.name} ({m.moref})" for m in now)
        raise BadInput(
            f"The definition {request.definition} is carried by {len(now)} machines: {names}.",
            code="duplicate",
            step=_STEP,
            next_command="release all but one: state: absent with machine",
        )
    if now and (wanted is None or now[0].moref == wanted.moref):
        if isinstance(now[0], Host) != (request.kind == "host"):
            raise BadInput(
                f"The definition {request.definition} is that of {now[0].name}, which is no {request.kind}.", code="duplicate", step=_STEP
            )
        wrong = misfits(site, now[0], request.model, request.tags)
        return Decision(now[0], [], found, [f"{now[0].name} no longer fits {request.definition}: {', '.join(wrong)}"] if wrong else [])
    if wanted is not None:
        mine = next(c for c in found if c["moref"] == wanted.moref)
        if not mine["fits"]:
            error = BadInput(
                f"{wanted.name} cannot be registered as {request.definition}: {', '.join(mine['reasons'])}.",
                code="does_not_fit",
                step=_STEP,
                next_command="choose another machine, release this one first, or change the model",
            )
            error.partial = {"candidates": found, "machine": None}
            raise error
        return Decision(wanted, now, found)
    best = next((c for c in found if c["fits"]), None)
    if best is None:
        raise _no_candidate(request, found)
    target = site.hosts.get(best["moref"]) or site.vms[best["moref"]]
    return Decision(target, now, found)


def check_names(request: Request) -> None:
    """:raises BadInput: group or definition cannot be a value of an attribute."""
    named = [("definition", request.definition), *([("group", request.group)] if request.present else [])]
    for what, text in named:
        if not text.strip() or text != text.strip() or len(text) > LONGEST or not text.isprintable():
            raise BadInput(f"The {what} is to be 1 to {LONGEST} printable characters, none of them white space at an end.", step=_STEP)


def _read(session: Session, request: Request) -> Site:
    site = read_site(session, devices=False)
    if request.kind == "vm" and request.model.disks_gb:
        free = [m.moref for m in machines(site, "vm") if m.custom.get(DEFINITION) in (None, "", request.definition)]
        site = with_devices(session, site, free)
    return site


def _carried(session: Session, kind: str, moref: str, key: int) -> str | None:
    """The definition that the machine carries now."""
    ref = session.managed(KINDS[kind], moref)
    rows = of_objects(session, [ref], {KINDS[kind]: ("name", "customValue")}, step=_STEP)
    if not rows:
        raise ServerError("The machine is gone from vCenter.", code="gone", step=_STEP, moref=moref)
    return next((str(v.value) for v in rows[0].props.get("customValue") or () if v.key == key and v.value), None)


def _result(site: Site, request: Request, decision: Decision, changed: bool) -> dict[str, Any]:
    now = holders(site, request.definition)
    target = decision.target
    before = {
        "definition": request.definition,
        "machine": ", ".join(m.name for m in now) or None,
        "group": now[0].custom.get(GROUP) if now else None,
    }
    left = [m for m in now if m not in decision.release]
    after = (
        {"definition": request.definition, "machine": target.name, "group": request.group}
        if target is not None
        else {
            "definition": request.definition,
            "machine": ", ".join(m.name for m in left) or None,
            "group": left[0].custom.get(GROUP) if left else None,
        }
    )
    return {
        "changed": changed,
        "machine": _shown(target, site, request) if target is not None else None,
        "released": [m.name for m in decision.release],
        "candidates": decision.candidates,
        "before": before,
        "after": after,
        "warnings": decision.warnings,
    }


def _is_so(decision: Decision, request: Request) -> bool:
    target = decision.target
    if target is None:
        return not decision.release
    return not decision.release and target.custom.get(DEFINITION) == request.definition and target.custom.get(GROUP) == request.group


def register(session: Session, request: Request, *, check: bool = False, told: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """Bring the binding to what C(request) wants.

    :returns: changed, machine, released, candidates, before, after.
    :raises BadInput: see decide().
    :raises Busy: somebody else works on the same definition or machine.
    """
    check_names(request)
    site = _read(session, request)
    if request.model.tags and request.present:
        request = replace(request, tags=tags_of(session, KINDS[request.kind], [m.moref for m in machines(site, request.kind)]))
    decision = decide(site, request)
    if not check and not _is_so(decision, request):
        with attributes.locked(session, f"definition {request.definition}") as mine:
            site = _read(session, request)  # what was read before the lock may be old
            decision = decide(site, request)
            if not _is_so(decision, request):
                site, decision = _write(session, request, site, decision, mine)
                result = _result(site, request, decision, True)
                for text in decision.warnings:
                    told(text)
                return result
    elif not check:
        attributes.sweep(session)
    for text in decision.warnings:
        told(text)
    return _result(site, request, decision, not _is_so(decision, request))


def _write(session: Session, request: Request, site: Site, decision: Decision, mine: attributes.Lock) -> tuple[Site, Decision]:
    """Release and bind, under the definition's lock. What is written first is such that a run that is killed here is gone on with."""
    definition, group = attributes.ensure(session, DEFINITION), attributes.ensure(session, GROUP)
    target = decision.target
    if target is None:
        _release(session, decision.release, definition, group, mine)
        return site, decision
    for _attempt in range(len(site.hosts) + len(site.vms) + 1):
        target = decision.target
        if target is None:
            break
        with attributes.locked(session, f"machine {target.moref}") as its:
            carried = _carried(session, request.kind, target.moref, definition)
            if carried in (None, request.definition):
                _release(session, decision.release, definition, group, mine)
                ref = session.managed(KINDS[request.kind], target.moref)
                mine.sure()
                its.sure()
                attributes.set_value(session, ref, definition, request.definition)
                attributes.set_value(session, ref, group, request.group)
                _be_sure(session, ref, definition, group, mine, its)
                return site, decision
        # somebody was faster: with what is there now, decide again
        site = _read(session, request)
        decision = decide(site, request)
    raise Busy("Every machine that fits was taken by somebody else meanwhile.", step=_STEP, next_command="run it again")


def _release(session: Session, released: Sequence[Host | Vm], definition: int, group: int, mine: attributes.Lock) -> None:
    for machine in released:
        ref = session.managed(KINDS["host" if isinstance(machine, Host) else "vm"], machine.moref)
        mine.sure()
        # the definition goes last: as long as it is there, the next run finds what is left to do
        attributes.set_value(session, ref, group, "")
        attributes.set_value(session, ref, definition, "")


def _be_sure(session: Session, ref: Any, definition: int, group: int, mine: attributes.Lock, its: attributes.Lock) -> None:
    """Take back what was written after a lock had been lost: a run that stood still between sure() and its write."""
    try:
        mine.sure()
        its.sure()
    except Busy:
        attributes.set_value(session, ref, group, "")
        attributes.set_value(session, ref, definition, "")
        raise
