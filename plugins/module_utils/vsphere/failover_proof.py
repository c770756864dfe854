# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether an ESXi host is dead, as far as vCenter can tell. On doubt it is not.

vCenter sees a host through its management network alone. A host that is cut off from it looks as one that is dead, and its VMs may
run. So what is proved here is only that nothing speaks for life; fencing is what makes sure, and the lock on a VM's files is last.

Vendor reference: vSphere Web Services API, HostSystemConnectionState ("notResponding": "VirtualCenter is not receiving heartbeats
from the server"), VirtualMachine.guestHeartbeatStatus, ClusterDasConfigInfo.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping, Sequence

from .client import Session
from .move_checks import Check
from .properties import of_objects
from .site import Site

HOST_PATHS = ("name", "runtime.connectionState", "runtime.powerState", "runtime.inMaintenanceMode", "runtime.dasHostState", "vm")
VM_PATHS = ("name", "runtime.connectionState", "runtime.powerState", "guestHeartbeatStatus")
#: Heartbeats that VMware Tools of a running guest send (ManagedEntityStatus).
ALIVE = frozenset({"green", "yellow", "red"})
#: What vSphere HA says of hosts whose VMs may run (ClusterDasFdmAvailabilityState).
_ISOLATED = frozenset({"networkIsolated", "networkPartitionedFromMaster", "connectedToMaster", "master", "election"})


@dataclass(frozen=True)
class Signs:
    """What speaks for and against the life of a host. C(vms): name, connection, power and heartbeat of its VMs, by MoRef."""

    name: str
    connection: str
    power: str
    das: str | None
    vms: Mapping[str, tuple[str, str, str, str]]


def read_signs(session: Session, host: str) -> Signs:
    """Read the signs of life of the host C(host) (MoRef), now."""
    step = "look for signs of life"
    rows = of_objects(session, [session.managed("HostSystem", host)], {"HostSystem": HOST_PATHS}, step=step)
    if not rows:
        return Signs(host, "removed", "unknown", None, {})
    p = rows[0].props
    refs: Sequence[Any] = p.get("vm") or ()
    found = of_objects(session, refs, {"VirtualMachine": VM_PATHS}, step=step) if refs else []
    vms = {
        r.moref: (
            str(r.props.get("name", r.moref)),
            str(r.props.get("runtime.connectionState", "")),
            str(r.props.get("runtime.powerState", "")),
            str(r.props.get("guestHeartbeatStatus", "gray")),
        )
        for r in found
    }
    das = getattr(p.get("runtime.dasHostState"), "state", None)
    return Signs(
        str(p.get("name", host)),
        str(p.get("runtime.connectionState", "")),
        str(p.get("runtime.powerState", "")),
        str(das) if das else None,
        vms,
    )


def _connection(signs: Signs) -> Check:
    id_, name = "host.dead", signs.name
    if signs.connection == "notResponding":
        power = {"poweredOff": ", and its power is off", "standBy": ", and it stands by"}.get(signs.power, "")
        return Check(id_, True, f"{name} does not answer vCenter{power}")
    if signs.connection == "removed":
        return Check(id_, False, f"{name} is no longer in vCenter: whether it runs cannot be told")
    if signs.connection == "disconnected":
        return Check(id_, False, f"{name} was disconnected by somebody: its VMs may run")
    return Check(id_, False, f"{name} is {signs.connection}: it is alive; move its VMs, or drain it with host_evacuate")


def _heartbeats(signs: Signs) -> Check:
    alive = [f"{name} (heartbeat {beat})" for name, _connection_, _power, beat in signs.vms.values() if beat in ALIVE]
    connected = [name for name, connection, _power, _beat in signs.vms.values() if connection == "connected"]
    if alive or connected:
        said = [*alive[:5], *(f"{n} (connected)" for n in connected[:5])]
        return Check("host.heartbeats", False, f"signs of life on {signs.name}: {', '.join(dict.fromkeys(said))}")
    if signs.das in _ISOLATED:
        return Check("host.heartbeats", False, f"vSphere HA sees {signs.name} as {signs.das}: its VMs may run")
    return Check("host.heartbeats", True, f"no heartbeat of any of {len(signs.vms)} VMs, none connected")


def fencing(fenced: bool | None) -> Check:
    """What the fencing says; None: nothing is known of it."""
    if fenced is None:
        return Check("host.fenced", True, "not said: only the lock on the VM's files stands against a second start", skipped=True)
    return Check("host.fenced", fenced, "the host was fenced" if fenced else "fencing has failed: the host may be running")


def prove(signs: Signs, site: Site, host: str, fenced: bool | None) -> list[Check]:
    """The checks that a failover from C(host) (MoRef) needs. Pure."""
    found = [_connection(signs), _heartbeats(signs), fencing(fenced)]
    known = site.hosts.get(host)
    cluster = site.clusters.get(known.cluster or "") if known is not None else None
    protected = cluster is not None and cluster.ha
    name = cluster.name if cluster is not None else ""
    detail = f"vSphere HA protects {name}: it restarts the VMs by itself" if protected else "vSphere HA does not protect it"
    return [*found, Check("cluster.ha", not protected, detail)]
