# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a precheck finds at a wave as a whole: its maps, space for snapshots, load of hosts, clocks, the certificate. Pure functions."""

from __future__ import annotations

import time
from collections import Counter
from typing import Callable, Iterator, Mapping, Sequence

from ..concerns import CRITICAL, Concern
from .disks import VmDisk
from .precheck_catalogue import OF_THE_WAVE, found
from .precheck_disks import WhyNoFiles, way_of
from .precheck_options import Options
from .precheck_read import SourceVm, Wave

GIB = 1 << 30
DAY = 86400.0
#: Names in one assessment.
_NAMED = 10
#: A part of the headroom that was asked for; with less than that a snapshot may fill the datastore within minutes.
_HARDLY_ANY = 0.1

OptionsOf = Callable[[SourceVm], Options]


def named(names: Sequence[str]) -> str:
    """Some of C(names), and how many more there are."""
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


# -- maps -----------------------------------------------------------------------------------------------------------


def unmapped(vm: SourceVm, options: Options) -> Iterator[Concern]:
    """Networks and datastores of C(vm) that no map names. An empty storage map is the target's default for all."""
    if options.check_maps:
        for nic in vm.facts["nics"]:
            if not {nic.network, nic.network_moref, "*"} & set(options.network_map):
                where = nic.network or "no network"
                yield found("VMNetworksNotMapped", f"{nic.label} is on {where}, which network_map does not name.", device=nic.label)
    if options.check_maps and options.storage_map:
        for disk in vm.disks:
            keys = {disk.datastore, disk.datastore_moref, disk.label, str(disk.key), disk.key, disk.address, disk.uuid, "*"}
            if not keys & set(options.storage_map):
                said = f"{disk.label} is on {disk.datastore or 'no datastore'}, which storage_map does not name."
                yield found("VMStorageNotMapped", said, disk=disk.label)


# -- the wave -------------------------------------------------------------------------------------------------------


def concerns_of(
    wave: Wave, of_vms: Mapping[str, Sequence[Concern]], options: Options, options_of: OptionsOf, why_no_files: WhyNoFiles
) -> Iterator[Concern]:
    """What is not of one VM.

    :param of_vms: what was found at VMs, by MoRef.
    :param options: those of the wave.
    """
    yield from _repeated(wave, of_vms, options_of)
    yield from _headroom(wave, options_of)
    yield from _streams(wave, options, options_of, why_no_files)
    yield from _server(wave, options, time.time())


def _repeated(wave: Wave, of_vms: Mapping[str, Sequence[Concern]], options_of: OptionsOf) -> Iterator[Concern]:
    names: dict[str, list[str]] = {}
    for moref, concerns in of_vms.items():
        vm = wave.vms[moref]
        for kind in dict.fromkeys(c.id for c in concerns if c.id in OF_THE_WAVE):
            if kind != "vmware.vm_missing_ip.detected" or options_of(vm).keeps_addresses:
                names.setdefault(kind, []).append(vm.name)
    for kind, vms in names.items():
        yield found(OF_THE_WAVE[kind], f"{len(vms)} of {len(wave.vms)} VMs: {named(vms)}.")


def _frozen(disk: VmDisk) -> bool:
    """Whether a snapshot of the VM holds C(disk), and so grows with what is written to it."""
    return not (disk.mode or "").startswith("independent") and disk.rdm_mode != "physicalMode"


def _headroom(wave: Wave, options_of: OptionsOf) -> Iterator[Concern]:
    needed: Counter[str] = Counter()
    vms: dict[str, set[str]] = {}
    for vm in wave.vms.values():
        options = options_of(vm)
        for disk in vm.disks if options.warm else ():
            if disk.datastore_moref and _frozen(disk):
                needed[disk.datastore_moref] += int(disk.capacity * options.headroom_percent / 100)
                vms.setdefault(disk.datastore_moref, set()).add(vm.name)
    for moref, wanted in needed.items():
        store = wave.stores.get(moref)
        if store is None or store.free is None or store.free >= wanted:
            continue
        yield found(
            "ferry.datastore.headroom",
            f"{store.name} has {store.free / GIB:.1f} GiB free; snapshots of {len(vms[moref])} VMs may need {wanted / GIB:.1f} GiB.",
            device=store.name,
            category=CRITICAL if store.free < wanted * _HARDLY_ANY else None,
        )


def _streams(wave: Wave, options: Options, options_of: OptionsOf, why_no_files: WhyNoFiles) -> Iterator[Concern]:
    """VDDK and HttpNfcLease both read through NFC of the host, which has 48 MB of memory for that by default."""
    per_host: Counter[str] = Counter()
    for vm in wave.vms.values():
        own = options_of(vm)
        if own.imported or any(way_of(d, own, why_no_files) in ("nfc", "nbd") for d in vm.disks):
            per_host[str(vm.facts["host_moref"] or "")] += 1
    for moref, count in per_host.items():
        if count > options.streams_per_host and moref:
            name = wave.hosts[moref].name if moref in wave.hosts else moref
            yield found("ferry.nfc.memory", f"{count} VMs on {name} are read over NFC at {options.streams_per_host} at most.", device=name)


def _server(wave: Wave, options: Options, now: float) -> Iterator[Concern]:
    if not wave.vcenter:
        yield found("ferry.server.esxi", "This is an ESXi host of its own.")
    if not wave.verified:
        yield found("ferry.tls.unverified", "vCenter's certificate is not verified (validate_certs is false).")
    if wave.certificate_end is not None and wave.certificate_end - now < options.certificate_days * DAY:
        days = (wave.certificate_end - now) / DAY
        end = time.strftime("%Y-%m-%d", time.gmtime(wave.certificate_end))
        yield found(
            "ferry.tls.expires", f"vCenter's certificate ends on {end}, in {days:.0f} days.", category=CRITICAL if days < 1 else None
        )
    clocks = [("vCenter", wave.skew), *((wave.hosts[moref].name, skew) for moref, skew in wave.host_skews.items())]
    for whose, skew in clocks:
        if skew is not None and abs(skew) > options.skew_seconds:
            which = "ahead of" if skew > 0 else "behind"
            device = None if whose == "vCenter" else whose
            yield found("ferry.clock.skew", f"The clock of {whose} is {abs(skew):.0f} seconds {which} this machine's.", device=device)
    used = {str(vm.facts["host_moref"] or "") for vm in wave.vms.values()}
    alone = sorted(h.name for moref, h in wave.hosts.items() if moref in used and h.time_servers is not None and not h.time_servers)
    if alone:
        yield found("ferry.clock.host", f"{len(alone)} ESXi hosts of the wave have no time server: {named(alone)}.")
