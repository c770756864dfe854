# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a precheck finds at one VM: its state, its guest, its devices. Pure functions of what was read.

The rules of Forklift are in its validation/policies/io/konveyor/forklift/vmware/*.rego; the API's names are those of the vSphere Web
Services API reference (VirtualMachineConfigInfo, VirtualMachineRuntimeInfo, GuestInfo, VirtualDevice).
"""

from __future__ import annotations

import re
from typing import Any, Iterator

from ..concerns import CRITICAL, WARNING, Concern
from .precheck_catalogue import found
from .precheck_options import Options
from .precheck_read import Host, SourceVm, Wave

MIB = 1 << 20
#: Forklift's rule for names (name.rego): those of DNS (RFC 1123), in either case.
_NAME = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9.]*)?[A-Za-z0-9])?")
_LONGEST_NAME = 63
#: guestId of what virt-v2v converts (virt-v2v-support(1), "Guest operating systems"), by its beginning.
_CONVERTED = re.compile(
    r"(rhel([4-9]|1\d)|centos|rockylinux|almalinux|oraclelinux|fedora|amazonlinux|sles1\d|opensuse|suse|debian([6-9]|1\d)|ubuntu"
    r"|windows|win(xp|net|longhorn|vista))",
    re.IGNORECASE,
)
#: Identifiers within that family that it does not convert.
_NOT_CONVERTED = re.compile(r"windowshyperv", re.IGNORECASE)
#: Windows for desktops since 8, which have fast startup; servers do not.
_FAST_STARTUP = re.compile(r"windows(8|9|1[0-2])(_64)?Guest", re.IGNORECASE)
#: Bytes that virt-v2v needs free (virt-v2v(1), "Free space in the guest"), by mount point; others _SPACE_ELSEWHERE.
_SPACE = {"/": 100 * MIB, "/boot": 50 * MIB, "c:": 100 * MIB}
_SPACE_ELSEWHERE = 10 * MIB
#: File systems that are always full, and that a conversion does not write to (GuestDiskInfo.filesystemType; older servers do not tell it).
_READ_ONLY = ("squashfs", "erofs", "iso9660", "udf", "cdfs")
_READ_ONLY_BELOW = ("/snap/", "/var/lib/snapd/snap/")
_PASSTHROUGH = ("VirtualPCIPassthrough", "VirtualSCSIPassthrough")
_USB = ("VirtualUSBController", "VirtualUSBXHCIController")
#: toolsVersionStatus2 of tools that are to be updated (VirtualMachineToolsVersionStatus).
_OLD_TOOLS = ("guestToolsNeedUpgrade", "guestToolsTooOld", "guestToolsSupportedOld", "guestToolsBlacklisted")


def concerns_of(vm: SourceVm, wave: Wave, options: Options) -> Iterator[Concern]:
    """Everything about C(vm) but its disks."""
    yield from _state(vm, wave.host_of(vm), options)
    yield from _guest(vm)
    yield from _space(vm, wave, options)
    yield from _devices(vm)
    yield from _settings(vm, wave)


def _state(vm: SourceVm, host: Host | None, options: Options) -> Iterator[Concern]:
    facts = vm.facts
    power, connection = facts["power"], facts["connection"]
    if connection not in (None, "connected"):
        yield found("ferry.vm.disconnected", f"vCenter calls it {connection}.", device=facts["host"])
    if host is not None and (host.maintenance or not host.connected):
        state = "in maintenance mode" if host.maintenance else "not connected"
        yield found("HostNotReady", f"Its host {host.name} is {state}.", device=host.name)
    if power == "suspended":
        yield found("VMPowerStateUnsupported", "It is suspended.")
    if facts["template"]:
        yield found("ferry.vm.template", "It is a template: no snapshot, no power.", category=CRITICAL if options.warm else None)
    if facts["encrypted"]:
        yield found("ferry.vm.encrypted", "Its files are encrypted.")
    running, version = str(facts["tools_running"] or ""), str(facts["tools_version"] or "")
    if power == "on" and running != "guestToolsRunning":
        what = "not installed" if version == "guestToolsNotInstalled" else "not running"
        yield found(
            "GuestToolsIssue",
            f"VMware Tools are {what}: the guest can neither be shut down nor quiesced.",
            category=WARNING if options.on_timeout == "poweroff" else None,
        )
    elif version in _OLD_TOOLS:
        yield found("ferry.tools.outdated", f"VMware Tools are of an old version ({version}).")


def _guest(vm: SourceVm) -> Iterator[Concern]:
    facts = vm.facts
    name = vm.name
    if not (_NAME.fullmatch(name) and len(name) <= _LONGEST_NAME):
        yield found("vmware.vm.name.invalid", f"{name!r} does not comply with RFC 1123 (up to 63 letters, digits, hyphens and dots).")
    guest = str(facts["guest_id"] or "")
    if not _CONVERTED.match(guest) or _NOT_CONVERTED.match(guest):
        yield found("vmware.os.unsupported", f"Its guest is {facts['guest_full_name'] or guest or 'unknown'} ({guest or 'no guest id'}).")
    if _FAST_STARTUP.fullmatch(guest):
        yield found("ferry.windows.fast_startup", "Windows for desktops hibernates when it is shut down, unless fast startup is off.")
    host_name = str(facts["guest_hostname"] or "")
    if not host_name:
        yield found("vmware.hostname.empty", "What the guest calls itself is not known.")
    elif host_name == "localhost.localdomain":
        yield found("vmware.hostname.default", f"The guest calls itself {host_name}.")
    if not any(nic.addresses for nic in facts["nics"]):
        yield found("vmware.vm_missing_ip.detected", "VMware Tools tell no address of the guest.")


def _space(vm: SourceVm, wave: Wave, options: Options) -> Iterator[Concern]:
    # older servers do not have GuestDiskInfo.mappings at all
    windows = wave.api >= (7,) and str(vm.facts["guest_id"] or "").lower().startswith("win")
    for disk in vm.props.get("guest.disk") or ():
        path = str(getattr(disk, "diskPath", None) or "")
        free = getattr(disk, "freeSpace", None)
        if path.startswith(_READ_ONLY_BELOW) or str(getattr(disk, "filesystemType", None) or "").lower() in _READ_ONLY:
            continue
        needed = _SPACE.get(path.lower().rstrip("\\/") if path != "/" else path, _SPACE_ELSEWHERE)
        if free is not None and int(free) < needed:
            yield found(
                "vmware.guestDisks.freespace",
                f"The guest has {int(free) // MIB} MB free on {path}; a conversion needs {needed // MIB} MB.",
                device=path,
                category=None if options.converts else WARNING,
            )
        if windows and not any(getattr(m, "key", 0) for m in getattr(disk, "mappings", None) or ()):
            yield found("vmware.guestDisks.key.not_found", f"VMware Tools do not tell which disk holds {path}.", device=path)


def _label(device: Any) -> str:
    return str(getattr(getattr(device, "deviceInfo", None), "label", None) or device._wsdlName)


def _devices(vm: SourceVm) -> Iterator[Concern]:
    for device in vm.devices:
        kind, label = device._wsdlName, _label(device)
        if kind in _PASSTHROUGH:
            yield found("vmware.passthrough_device.detected", f"{label} is a device of its ESXi host ({kind}).", device=label)
        elif kind == "VirtualSriovEthernetCard":
            yield found("vmware.device.sriov.detected", f"{label} is a function of a physical card.", device=label)
        elif kind in _USB:
            yield found("vmware.usb_controller.detected", f"It has a {label}.", device=label)
        elif kind == "VirtualTPM":
            yield found("vmware.tpm.detected", "It has a virtual TPM.", device=label)
        elif kind == "VirtualCdrom":
            connectable = getattr(device, "connectable", None)
            file = getattr(device.backing, "fileName", None) or getattr(device.backing, "deviceName", None)
            if getattr(connectable, "connected", False) or (getattr(connectable, "startConnected", False) and file):
                yield found("ferry.cdrom.connected", f"{label} has {file or 'a medium'}.", device=label)


def _settings(vm: SourceVm, wave: Wave) -> Iterator[Concern]:
    props = vm.props
    affinity = getattr(props.get("config.cpuAffinity"), "affinitySet", None)
    if affinity:
        yield found("vmware.cpu_affinity.detected", f"It runs on the processors {', '.join(map(str, affinity))} only.")
    options = {str(o.key): str(o.value) for o in props.get("config.extraConfig") or ()}
    if options.get("numa.nodeAffinity"):
        yield found("vmware.numa_affinity.detected", f"It is bound to the NUMA nodes {options['numa.nodeAffinity']}.")
    hot = [
        what
        for what, leaf in (
            ("adding processors", "config.cpuHotAddEnabled"),
            ("removing processors", "config.cpuHotRemoveEnabled"),
            ("adding memory", "config.memoryHotAddEnabled"),
        )
        if props.get(leaf)
    ]
    if hot:
        yield found("vmware.cpu_memory.hotplug.enabled", f"While it runs it allows {', '.join(hot)}.")
    if props.get("config.flags.diskUuidEnabled") and any(d.controller_kind == "scsi" for d in vm.disks):
        yield found("vmware.disk_serial.truncated", "disk.EnableUUID is on: its guest sees the SCSI disks' serial numbers.")
    if fault_tolerant(vm):
        yield found("vmware.fault_tolerance.enabled", f"Fault Tolerance is {props['runtime.faultToleranceState']}.")
    cluster = wave.clusters.get(vm.cluster or "")
    if cluster is not None:
        if cluster.drs:
            yield found("vmware.drs.enabled", f"Its cluster {cluster.name} has DRS.", device=cluster.name)
        if cluster.dpm:
            yield found("vmware.dpm.enabled", f"Its cluster {cluster.name} has Distributed Power Management.", device=cluster.name)
        if vm.moref in cluster.pinned:
            yield found("vmware.host_affinity.detected", f"A rule of the cluster {cluster.name} binds it to hosts.", device=cluster.name)


def fault_tolerant(vm: SourceVm) -> bool:
    """Whether Fault Tolerance is set up for C(vm) (VirtualMachineFaultToleranceState)."""
    return str(vm.props.get("runtime.faultToleranceState") or "notConfigured") != "notConfigured"
