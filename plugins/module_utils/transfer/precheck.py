# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A precheck of a wave: what the source's side and the target's side find, put together VM by VM."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Mapping, Sequence

from ..concerns import Concern, ordered, ready
from ..errors import BadInput, ServerError, bounded
from ..openstack_cloud import client as openstack_client
from ..openstack_cloud import precheck as openstack
from ..openstack_cloud.finding import Finding
from ..openstack_cloud.options import PER_VM as LANDING_PER_VM
from ..vsphere import client, importer_rules, precheck
from ..vsphere.importer_catalogue import IMPORTERS
from ..vsphere.precheck_options import PER_VM, Options
from . import precheck_guest
from .ways import why_no_files

TARGETS = ("openstack", *IMPORTERS, "kubernetes", "none")
#: What landing_plan takes for a whole wave beside what it takes for one VM.
LANDING = (*LANDING_PER_VM, "constraints", "port_policy", "rehearsal")
_MAPS = ("network_map", "storage_map")
#: What is said of the source only; the maps are of both sides.
_SOURCE_ONLY = tuple(name for name in PER_VM if name not in LANDING_PER_VM)
_STEP = "read the options"
#: A wave that is larger is a mistake, not a wave.
MOST_VMS = 10_000


def target_of(params: Mapping[str, Any]) -> str:
    """The option C(target); without it OpenStack where a cloud was given."""
    return str(params.get("target") or ("openstack" if params.get("cloud") or params.get("auth") else "none"))


def entries_of(vms: Sequence[Any]) -> list[tuple[str, dict[str, Any]]]:
    """Each of the option C(vms) as what names it and what is said of it.

    :raises BadInput: there are none, or one is neither a name nor a mapping of C(vm) and C(options).
    """
    if not vms:
        raise BadInput("vms is empty: there is nothing to check.", step=_STEP)
    if len(vms) > MOST_VMS:
        raise BadInput(f"vms has {len(vms)} entries; a wave has {MOST_VMS} at most.", step=_STEP)
    found: list[tuple[str, dict[str, Any]]] = []
    for entry in vms:
        if isinstance(entry, Mapping):
            unknown = sorted(bounded(k, 40) for k in entry if k not in ("vm", "options"))
            if unknown or not entry.get("vm"):
                wrong = f"has {', '.join(unknown)}" if unknown else "has no vm"
                raise BadInput(f"An entry of vms {wrong}; it can have vm and options.", step=_STEP)
            said = entry.get("options") or {}
            if not isinstance(said, Mapping):
                raise BadInput(f"options of {bounded(entry['vm'], 80)} is no mapping.", step=_STEP)
            found.append((str(entry["vm"]), dict(said)))
        elif entry is None or isinstance(entry, (list, bool)):
            raise BadInput(f"{bounded(entry, 40)} names no VM.", step=_STEP)
        else:
            found.append((str(entry), {}))
    return found


def _options(params: Mapping[str, Any], target: str) -> Options:
    given = ("strategy", "on_timeout", "headroom_percent", "streams_per_host", "skew_seconds", "certificate_days")
    said: dict[str, Any] = {name: params[name] for name in given if params.get(name) is not None}
    if params.get("transports") is not None:
        said["transports"] = tuple(params["transports"])
    maps: dict[str, Any] = {name: params.get(name) or {} for name in _MAPS}
    return Options(
        **said,
        **maps,
        # OpenStack's side looks at the maps itself; without a target they are looked at where they are given
        target=target,
        check_maps=target in (*IMPORTERS, "kubernetes") or (target == "none" and bool(maps["network_map"])),
        distrusted_builds=tuple(params.get("distrusted_builds") or ()),
    )


def _converts(said: Mapping[str, Any]) -> bool:
    """Whether the guest is to find other hardware: what keeps its disks and cards needs no conversion."""
    told = said.get("guest_convert")
    return said.get("hardware") == "virtio" if told is None else str(told).lower() in ("true", "yes", "1")


def run(params: Mapping[str, Any]) -> dict[str, Any]:
    """Check a wave. Changes nothing.

    :param params: the module's options.
    :returns: C(vms), one entry for each that was asked for: name, moref, concerns, ready (and facts, where they were asked for);
        C(wave_concerns); C(ready) of all.
    :raises BadInput: an option is wrong.
    :raises ServerError: vCenter cannot be read. What goes wrong at the target is a concern.
    """
    entries = entries_of(params["vms"])
    target = target_of(params)
    options = _options(params, target)
    landing = params.get("landing") or {}
    unknown = sorted(bounded(k, 40) for k in landing if k not in LANDING)
    if unknown:
        raise BadInput(f"landing has {', '.join(unknown)}; it can have {', '.join(LANDING)}.", step=_STEP)
    # what is of the target only, OpenStack's side looks at; without it nothing does
    own = [options.of({k: v for k, v in said.items() if target != "openstack" or k in PER_VM}) for name, said in entries]
    if target == "openstack":
        own = [replace(o, converts=_converts({**landing, **said})) for o, (name, said) in zip(own, entries, strict=True)]
    with client.connect(params) as session:
        checked, of_wave = precheck.check(session, [name for name, said in entries], options, own, why_no_files)
        if params.get("inspect") == "powered_off":
            precheck_guest.inspected(session, checked, own)
    if target in IMPORTERS:
        told, of_wave = importer_rules.judged(target, checked, of_wave, options, own)
        for entry, concerns in zip(checked, told, strict=True):
            entry.concerns[:] = concerns
    if target == "openstack":
        there, beside = _openstack(params, landing, checked, [said for name, said in entries])
        for entry in checked:
            entry.concerns[:] = ordered([*entry.concerns, *there.get(entry.moref or "", ())])
        of_wave = ordered([*of_wave, *beside])
    vms = [
        {
            "name": entry.name,
            "moref": entry.moref,
            "concerns": [c.as_dict() for c in entry.concerns],
            "ready": ready(entry.concerns),
            **({"facts": entry.facts} if params.get("facts") else {}),
        }
        for entry in checked
    ]
    return {
        "vms": vms,
        "wave_concerns": [c.as_dict() for c in of_wave],
        "ready": ready(of_wave) and all(vm["ready"] for vm in vms),
        "target": target,
    }


def _openstack(
    params: Mapping[str, Any], landing: Mapping[str, Any], checked: Sequence[precheck.Checked], said: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, list[Concern]], list[Concern]]:
    """What the target's side finds, by MoRef, and of the wave."""
    wave = [
        {**entry.facts, "options": {k: v for k, v in own.items() if k not in _SOURCE_ONLY}}
        for entry, own in zip(checked, said, strict=True)
        if entry.facts is not None and not entry.twice
    ]
    if not wave:
        return {}, []
    try:
        # validate_certs and ca_path are vCenter's here; OpenStack's are in clouds.yaml or ca_cert
        cloud = openstack_client.connect({**params, "validate_certs": None})
    except ServerError as e:
        return {}, [openstack.concern(Finding("ferry.target.unreadable", f"{e.message} {e.said or ''}"))]
    maps = {name: params.get(name) or {} for name in _MAPS}
    by_key, of_wave = openstack.concerns(cloud, wave, {**maps, **landing})
    return {str(vm["moref"]): by_key.get(key, []) for key, vm in zip(openstack.keys_of(wave), wave, strict=True)}, of_wave
