# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The target's side of a precheck: all that stands in the way of a wave in OpenStack, or is worth knowing, before anything is made.

What a landing would fail at is not computed twice: it is the plan's own findings (plan.py), with what only a person wants to know
beside them. The calls do not grow with the wave, only with what the cloud has (a page of a listing has 1,000 rows).
"""

from __future__ import annotations

import re
from typing import Any, Mapping, Sequence

from ..concerns import CRITICAL, Concern, ordered
from ..errors import FerryError, bounded
from . import formats, landing, properties
from .client import get_optional
from .finding import Finding, id_of
from .options import Options, asked, card_of, label_of
from .plan import plan
from .precheck_catalogue import KINDS
from .target import Target, read_target

#: Traits of compute hosts (os-traits), by what needs them.
SECURE_BOOT = "COMPUTE_SECURITY_UEFI_SECURE_BOOT"
BIOS, UEFI = "COMPUTE_FIRMWARE_BIOS", "COMPUTE_FIRMWARE_UEFI"
TPM = {"1.2": "COMPUTE_SECURITY_TPM_1_2", "2.0": "COMPUTE_SECURITY_TPM_2_0"}
#: Traits that some provider has (Placement, "Traits", 1.6).
TRAITS = "/traits?associated=true&name=startswith:COMPUTE_"
#: One quota that each service tells, if it tells any.
_TELLS = {"Nova": "instances", "Cinder": "volumes", "Neutron": "port"}


def concerns(
    client: Any, wave: Sequence[Mapping[str, Any]], options: Options | Mapping[str, Any]
) -> tuple[dict[str, list[Concern]], list[Concern]]:
    """What stands in the way of C(wave) in the cloud that C(client) is logged in to. Changes nothing.

    :param client: what client.connect() gives.
    :param wave: facts of the VMs, as vm_info returns them.
    :param options: those of landing_plan, by its names; what is unknown in there is left aside.
    :returns: by name of the VM (by MoRef where several have one name), each of the wave with a list; and of the wave as a whole.
        A target that cannot be read is a concern of the wave, too.
    """
    keys = keys_of(wave)
    found: dict[str, list[Concern]] = {key: [] for key in keys}
    try:
        own = options if isinstance(options, Options) else landing.options_of(options)
        wanted = asked(wave, own)
        sources = {str(vm["instance_uuid"]).lower() for vm in wave if vm.get("instance_uuid")}
        target = read_target(client, wanted, sources=sources)
        traits = _traits(client) if any(_wants_traits(vm) for vm in wave) else None
    except FerryError as e:
        said = f": {e.said}" if e.said else ""
        return found, [concern(Finding("ferry.target.unreadable", f"{e.message.rstrip('.')}{said}"))]
    if wanted.images:
        wave = formats.looked_at(wave, [str((vm.get("options") or {}).get("hypervisor") or own.hypervisor) for vm in wave])
    planned = plan(wave, target, own)
    specs = {str(f.get("id")): f.get("extra_specs") or {} for f in target.flavors}
    for key, vm, entry in zip(keys, wave, planned["vms"], strict=True):
        mine = [concern(text, stops=True) for text in entry["errors"] if not _left_to_source(text, vm)]
        mine += [concern(text) for text in (*entry["warnings"], *_beside(vm, entry, own, traits, specs))]
        found[key] = ordered(mine)
    of_wave = [concern(e["what"], stops=True) for e in planned["errors"] if e["vm"] is None]
    of_wave += [concern(note) for note in (*planned["notes"], *_unknown_quotas(target))]
    return found, ordered(of_wave)


def keys_of(wave: Sequence[Mapping[str, Any]]) -> list[str]:
    """Under which key each VM's concerns are returned: its name, or its MoRef where several VMs have the name."""
    names = [str(vm.get("name") or vm.get("moref") or "?") for vm in wave]
    twice = {n for n in names if names.count(n) > 1} if len(set(names)) < len(names) else set()
    return [str(vm.get("moref") or f"{n}#{i}") if n in twice else n for i, (n, vm) in enumerate(zip(names, wave, strict=True))]


def concern(text: str, *, stops: bool = False) -> Concern:
    """A finding as a concern. C(stops): it is an error of the plan, so nothing lands while it is there."""
    id_ = id_of(text)
    kind = KINDS[id_]
    disk, device = (text.disk, text.device) if isinstance(text, Finding) else (None, None)
    return Concern(id_, CRITICAL if stops else kind.category, kind.label, bounded(text), kind.advice, disk=disk, device=device)


def _left_to_source(text: str, vm: Mapping[str, Any]) -> bool:
    """Disks without a size are told by the side that reads them, unless they come from files."""
    return id_of(text) == "vmware.disk.capacity.invalid" and not any(d.get("file") for d in vm.get("disks") or ())


# -- what only a person wants to know -------------------------------------------------------------------------------


def _beside(
    vm: Mapping[str, Any], entry: Mapping[str, Any], own: Options, traits: frozenset[str] | None, specs: Mapping[str, Mapping[str, Any]]
) -> list[Finding]:
    if not entry["server"]:
        return []
    own = own.of(vm)
    found = [*_names(entry), *_addresses(vm, entry, own)]
    if entry["server"]["id"] and not entry["server"]["replace"]:
        found.append(Finding("ferry.server.there", f"it has landed already, as the server {entry['server']['id']}"))
    root = next((v for v in entry["volumes"] if v["role"] == "root"), None)
    if root is not None:
        flavor = specs.get(str((entry["flavor"] or {}).get("id"))) or {}
        found += _hardware(vm, root["image_properties"], flavor, traits)
    return found


def host_name(name: str) -> str:
    """The host name that Nova makes of a server's name, empty where nothing is left (nova/utils.py, sanitize_hostname)."""
    found = name.encode("latin-1", "ignore").decode("latin-1")[:63]
    found = re.sub(r"[^\w.-]+", "", re.sub(r"[ _.]", "-", found))
    return found.lower().strip(".-")


def _names(entry: Mapping[str, Any]) -> list[Finding]:
    name = str(entry["server"]["name"])
    host = host_name(name)
    if host and host == name.lower():
        return []
    return [
        Finding("NameNotValid", f"its host name becomes {host!r}" if host else "its name leaves no host name: Nova makes one of its ID")
    ]


def _addresses(vm: Mapping[str, Any], entry: Mapping[str, Any], own: Options) -> list[Finding]:
    """Cards whose guest has addresses now that their ports will not have."""
    fixed = {p["index"]: {str(f["ip_address"]) for f in p["fixed_ips"] or ()} for p in entry["ports"]}
    found = []
    for index, nic in enumerate(vm.get("nics") or ()):
        if index not in fixed or card_of(nic, index, own).wants_address:
            continue
        told = [str(a) for a in nic.get("addresses") or () if ":" not in str(a) and not str(a).startswith("169.254.")]
        if told:
            shown = label_of(nic, index)
            text = f"{shown}: its guest has {bounded(', '.join(told), 200)} now; its port gets what Neutron chooses"
            found.append(Finding("ferry.address.changes", text, device=shown))
    return found


def _wants_traits(vm: Mapping[str, Any]) -> bool:
    return bool(vm.get("secure_boot") or vm.get("vtpm")) or str(vm.get("firmware") or "").lower() in ("efi", "uefi")


def _traits(client: Any) -> frozenset[str] | None:
    """Traits that compute hosts have; None where this user may not see them (Placement's default) or there is no Placement."""
    rows = get_optional(client, "placement", TRAITS, step="read the traits of compute hosts", microversion="1.6").get("traits")
    return frozenset(str(r) for r in rows) if isinstance(rows, list) else None


def _hardware(vm: Mapping[str, Any], asks: Mapping[str, Any], flavor: Mapping[str, Any], traits: frozenset[str] | None) -> list[Finding]:
    """C(asks): image properties of the volume that it boots from; C(flavor): extra specs."""
    found = []
    if vm.get("guest_id") and not properties.guest_os(str(vm["guest_id"])) and "os_type" not in asks and "os_distro" not in asks:
        text = f"its guest type {bounded(vm['guest_id'], 60)} has no counterpart in Glance's os_type and os_distro"
        found.append(Finding("ferry.guest.unmapped", text))
    had = "uefi" if str(vm.get("firmware") or "bios").lower() in ("efi", "uefi") else "bios"
    gets = str(asks.get("hw_firmware_type") or "bios")
    if had != gets:
        found.append(Finding("ferry.firmware.changed", f"its guest was installed with {had}, its server boots with {gets}"))
    if gets == "uefi" and traits is not None and BIOS in traits and UEFI not in traits:
        found.append(Finding("ferry.uefi.unsupported", "it needs UEFI, which no compute host has"))
    if asks.get("os_secure_boot") == "required":
        if traits is None:
            found.append(Finding("ferry.secure_boot.unknown", "it needs secure boot; whether compute hosts have it, this user may not see"))
        elif SECURE_BOOT not in traits:
            found.append(Finding("ferry.secure_boot.unsupported", "it needs secure boot, which no compute host has"))
    elif vm.get("secure_boot"):
        found.append(Finding("ferry.secure_boot.lost", "it has secure boot, its server will not require it"))
    version = str(asks.get("hw_tpm_version") or flavor.get("hw:tpm_version") or "")
    if version and traits is not None and TPM.get(version) not in traits:
        found.append(Finding("ferry.tpm.unsupported", f"its server asks for a TPM {bounded(version, 20)}, which no compute host has"))
    if vm.get("vtpm"):
        has = f"gets an empty TPM {bounded(version, 20)}" if version else "has none"
        found.append(Finding("ferry.tpm.lost", f"it has a virtual TPM, its server {has}"))
    return found


def _unknown_quotas(target: Target) -> list[Finding]:
    silent = [service for service, quota in _TELLS.items() if quota not in target.quotas]
    return [Finding("ferry.quota.unknown", f"{service} does not tell its quotas to this user", device=service) for service in silent]
