# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a precheck reads: the names of all VMs with what is around them, then a wave's VMs in full. Two questions, answered in pages."""

from __future__ import annotations

import datetime
import http.client
import re
import ssl
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Callable, Iterable, Mapping, Sequence

from .. import trust
from ..errors import ServerError
from . import cbt
from .builds import Build
from .client import CONNECT_TIMEOUT, Endpoint, Session
from .disks import VmDisk
from .find import MOREF, UUID, Names, VmRef
from .guest import VM_PATHS, map_vm, network_names
from .properties import Row, moref_of, of_objects, of_view
from .snapshot_tree import Snapshot, server_time
from .tree import ANCESTORS, Tree, shown

#: Leaves of a VM beside those that its facts are made of.
MORE_VM_PATHS = (
    "capability.changeTrackingSupported",
    "config.cpuAffinity",
    "config.cpuHotAddEnabled",
    "config.cpuHotRemoveEnabled",
    "config.extraConfig",
    "config.flags.diskUuidEnabled",
    "config.memoryHotAddEnabled",
    "guest.disk",
    "runtime.faultToleranceState",
)
#: Read of every VM, to find those that are asked for.
_NAME_PATHS = ("name", "parent", "parentVApp", "config.instanceUuid", "config.uuid", "config.template")
_AROUND_PATHS: dict[str, Sequence[str]] = {
    **ANCESTORS,
    "ClusterComputeResource": ("name", "parent", "configurationEx"),
    "HostSystem": (
        "name",
        "parent",
        "config.dateTimeInfo",
        "configManager.dateTimeSystem",
        "config.product.build",
        "config.product.version",
        "runtime.connectionState",
        "runtime.inMaintenanceMode",
    ),
    "Datastore": (
        "name",
        "parent",
        "summary.accessible",
        "summary.capacity",
        "summary.freeSpace",
        "summary.maintenanceMode",
        "summary.type",
    ),
    "Network": ("name",),
    "DistributedVirtualPortgroup": ("name", "key"),
    "OpaqueNetwork": ("name", "summary"),
}
#: VMs in one page of the second question: each has some 20 to 100 KiB of devices and extra configuration.
_PAGE = 250
#: Hosts whose clock is asked for.
_MOST_CLOCKS = 4
_STEP = "read the wave"


@dataclass(frozen=True)
class Answer:
    """What one entry of a wave means. C(moref): the VM; None where there is none or more than one (C(matches): their paths).

    C(close): names that may have been meant.
    """

    asked: str
    moref: str | None
    matches: tuple[str, ...] = ()
    close: tuple[str, ...] = ()


@dataclass(frozen=True)
class SourceVm:
    """A VM of the wave. C(facts): see guest.map_vm. C(props): what the property collector read. C(cluster): MoRef of its host's."""

    facts: dict[str, Any]
    props: Mapping[str, Any]
    tracking: cbt.Facts
    cluster: str | None = None

    @property
    def moref(self) -> str:
        return str(self.facts["moref"])

    @property
    def name(self) -> str:
        return str(self.facts["name"])

    @property
    def disks(self) -> Sequence[VmDisk]:
        disks: Sequence[VmDisk] = self.facts["disks"]
        return disks

    @property
    def devices(self) -> Sequence[Any]:
        return self.props.get("config.hardware.device") or ()

    @property
    def foreign_snapshots(self) -> list[Snapshot]:
        """Snapshots that are not ours: ours are removed by whoever took them, or by the next run."""
        return [s for s in self.tracking.snapshots if s.tag is None]


@dataclass(frozen=True)
class Host:
    """An ESXi host. C(time_servers): None where that may not be read. C(clock): its HostDateTimeSystem."""

    name: str
    build: Build | None
    connected: bool
    maintenance: bool
    time_servers: tuple[str, ...] | None
    clock: Any = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Store:
    """A datastore; sizes in bytes, None where they may not be read."""

    name: str
    type: str
    capacity: int | None
    free: int | None
    accessible: bool
    maintenance: str


@dataclass(frozen=True)
class Cluster:
    """C(pinned): MoRefs of the VMs that an enabled rule binds to hosts, or keeps off them."""

    name: str
    drs: bool
    dpm: bool
    pinned: frozenset[str]


@dataclass(frozen=True)
class Wave:
    """What was read. C(answers): one for each entry that was asked for, in its order. Hosts, stores, clusters by MoRef.

    C(skew): seconds that the server's clock is ahead of ours; C(host_skews): those of some hosts, by MoRef.
    C(certificate_end): when its certificate ends (seconds since 1970), None where it was not verified. C(api): version of the
    server's API. C(attributes): names of the custom attributes that are defined. C(session_key): see UserSession.key; good as
    long as the session is of C(generation).
    """

    answers: Sequence[Answer]
    vms: Mapping[str, SourceVm]
    hosts: Mapping[str, Host] = field(default_factory=dict)
    stores: Mapping[str, Store] = field(default_factory=dict)
    clusters: Mapping[str, Cluster] = field(default_factory=dict)
    skew: float | None = None
    host_skews: Mapping[str, float] = field(default_factory=dict)
    verified: bool = True
    certificate_end: float | None = None
    vcenter: bool = True
    api: tuple[int, ...] = ()
    attributes: frozenset[str] = frozenset()
    session_key: str | None = None
    generation: int = 0

    def host_of(self, vm: SourceVm) -> Host | None:
        return self.hosts.get(str(vm.facts.get("host_moref") or ""))


# -- names ----------------------------------------------------------------------------------------------------------


def resolve(wanted: Sequence[str], rows: Sequence[Row], tree: Tree) -> list[Answer]:
    """Which VM each of C(wanted) means, as find.find_vms takes them; an unknown or ambiguous one hides no other. Pure.

    :param rows: of all VMs, with C(_NAME_PATHS).
    """
    by_name: dict[str, list[str]] = {}
    by_uuid: dict[str, list[str]] = {}
    by_path: dict[str, list[str]] = {}
    by_last: dict[str, list[str]] = {}
    morefs = {row.moref for row in rows}
    for row in rows:
        name = shown(str(row.props.get("name", row.moref)))
        by_name.setdefault(name, []).append(row.moref)
        by_last.setdefault(name.rsplit("/", 1)[-1], []).append(row.moref)
        for leaf in ("config.instanceUuid", "config.uuid"):
            if row.props.get(leaf):
                by_uuid.setdefault(str(row.props[leaf]).lower(), []).append(row.moref)
        by_path.setdefault(tree.path(row.moref).strip("/"), []).append(row.moref)
    names = Names(by_name)

    def matches(text: str) -> list[str]:
        if UUID.match(text) and text.lower() in by_uuid:
            return by_uuid[text.lower()]
        if "/" in text and text.strip("/") in by_path:
            return by_path[text.strip("/")]
        found = [text] if MOREF.match(text) and text in morefs else []
        found += by_name.get(text, [])
        if not found and text.strip("/"):
            tail = "/" + text.strip("/")
            last = by_last.get(tail.rsplit("/", 1)[-1], []) if "/" in text else []
            found = [m for m in last if (shown(tree.path(m)) == tail if text.startswith("/") else shown(tree.path(m)).endswith(tail))]
        return found

    answers = []
    for text in wanted:
        found = list(dict.fromkeys(matches(text.strip()))) if text.strip() else []
        paths = tuple(f"{tree.path(m)} ({m})" for m in found)
        close = () if found else tuple(names.close(text.strip()))
        answers.append(Answer(text, found[0] if len(found) == 1 else None, paths, close))
    return answers


# -- the answers of the property collector ---------------------------------------------------------------------------


def _host(row: Row) -> Host:
    p = row.props
    version, number = p.get("config.product.version"), str(p.get("config.product.build") or "")
    name = shown(str(p.get("name", row.moref)))
    clock = p.get("config.dateTimeInfo")
    ntp, ptp = getattr(clock, "ntpConfig", None), getattr(clock, "ptpConfig", None)
    servers = [*(getattr(ntp, "server", None) or ()), *(["PTP"] if getattr(ptp, "port", None) else [])]
    return Host(
        name=name,
        build=Build(str(version), int(number), name) if version and number.isdigit() else None,
        connected=str(p.get("runtime.connectionState", "connected")) == "connected",
        maintenance=bool(p.get("runtime.inMaintenanceMode")),
        time_servers=None if clock is None else tuple(str(s) for s in servers),
        clock=p.get("configManager.dateTimeSystem"),
    )


def _store(row: Row) -> Store:
    p = row.props
    capacity, free = p.get("summary.capacity"), p.get("summary.freeSpace")
    return Store(
        name=shown(str(p.get("name", row.moref))),
        type=str(p.get("summary.type") or ""),
        capacity=None if capacity is None else int(capacity),
        free=None if free is None else int(free),
        accessible=bool(p.get("summary.accessible", True)),
        maintenance=str(p.get("summary.maintenanceMode") or "normal"),
    )


def _cluster(row: Row) -> Cluster:
    """Vendor reference: ClusterConfigInfoEx (drsConfig, dpmConfigInfo, group, rule), ClusterVmHostRuleInfo."""
    config = row.props.get("configurationEx")
    groups = {str(g.name): frozenset(moref_of(v) for v in getattr(g, "vm", None) or ()) for g in getattr(config, "group", None) or ()}
    pinned: set[str] = set()
    for rule in getattr(config, "rule", None) or ():
        if rule._wsdlName == "ClusterVmHostRuleInfo" and getattr(rule, "enabled", True):
            pinned |= groups.get(str(rule.vmGroupName), frozenset())
    return Cluster(
        name=shown(str(row.props.get("name", row.moref))),
        drs=bool(getattr(getattr(config, "drsConfig", None), "enabled", False)),
        dpm=bool(getattr(getattr(config, "dpmConfigInfo", None), "enabled", False)),
        pinned=frozenset(pinned),
    )


def _source_vm(row: Row, tree: Tree, networks: dict[str, str], fields: Sequence[Any]) -> SourceVm:
    facts = map_vm(row, tree, networks, fields)
    host = facts["host_moref"]
    above = next((r.moref for r in tree.chain(host)[1:] if r.kind == "ClusterComputeResource"), None) if host else None
    ref = VmRef(row.moref, facts["name"], facts["path"], facts["instance_uuid"], facts["template"], None)
    return SourceVm(facts, row.props, cbt.facts_of(ref, row.props), above)


def session_key(session: Session) -> str | None:
    """The key of this session, None where vCenter does not tell."""
    rows = of_objects(session, [session.content.sessionManager], {"SessionManager": ("currentSession",)}, step=_STEP)
    current = rows[0].props.get("currentSession") if rows else None
    return str(current.key) if current is not None else None


def _skew(ask: Callable[[], datetime.datetime]) -> float:
    """Seconds that the clock that C(ask) reads is ahead of ours; half of the time that asking took is taken off."""
    began = datetime.datetime.now(datetime.timezone.utc)
    now = ask()
    ended = datetime.datetime.now(datetime.timezone.utc)
    return (now - (began + (ended - began) / 2)).total_seconds()


def _host_skews(session: Session, hosts: Mapping[str, Host], vms: Iterable[SourceVm]) -> dict[str, float]:
    """Of those hosts that most of the VMs are on: a call for each, so of a few only."""
    found: dict[str, float] = {}
    busiest = Counter(str(vm.facts["host_moref"]) for vm in vms).most_common(_MOST_CLOCKS)
    for moref in dict(busiest):
        host = hosts.get(moref)
        if host is None or host.clock is None or not host.connected:
            continue
        clock = host.clock

        def ask(clock: Any = clock) -> datetime.datetime:
            now: datetime.datetime = session.call(clock.QueryDateTime, step="read the host's clock", again=True)
            return now if now.tzinfo else now.replace(tzinfo=datetime.timezone.utc)

        try:
            found[moref] = _skew(ask)
        except ServerError:
            pass  # the account may not ask, or the host does not answer: what is wrong with it, others tell
    return found


def read(session: Session, wanted: Sequence[str]) -> Wave:
    """Read the wave C(wanted): names, paths, uuids or MoRefs, as everywhere."""
    skew = _skew(lambda: server_time(session))
    around = of_view(session, {**_AROUND_PATHS, "VirtualMachine": _NAME_PATHS}, step=_STEP)
    tree = Tree(around)
    answers = resolve(wanted, [r for r in around if r.kind == "VirtualMachine"], tree)
    refs = [session.managed("VirtualMachine", m) for m in dict.fromkeys(a.moref for a in answers if a.moref)]
    content = session.content
    managers = [m for m in (content.customFieldsManager, content.sessionManager) if m is not None]
    paths = {
        "VirtualMachine": (*VM_PATHS, *MORE_VM_PATHS),
        "CustomFieldsManager": ("field",),
        "SessionManager": ("currentSession",),
    }
    generation = session.generation
    rows = of_objects(session, [*refs, *managers], paths, page=_PAGE, step=_STEP)
    fields = next((r.props.get("field") or () for r in rows if r.kind == "CustomFieldsManager"), ())
    current = next((r.props.get("currentSession") for r in rows if r.kind == "SessionManager"), None)
    networks = network_names(around)
    vms = {r.moref: _source_vm(r, tree, networks, fields) for r in rows if r.kind == "VirtualMachine"}
    hosts = {r.moref: _host(r) for r in around if r.kind == "HostSystem"}
    return Wave(
        # one that was removed between the two questions is not found
        answers=[a if a.moref is None or a.moref in vms else Answer(a.asked, None) for a in answers],
        vms=vms,
        hosts=hosts,
        stores={r.moref: _store(r) for r in around if r.kind == "Datastore"},
        clusters={r.moref: _cluster(r) for r in around if r.kind == "ClusterComputeResource"},
        skew=skew,
        host_skews=_host_skews(session, hosts, vms.values()),
        verified=session.endpoint.validate_certs,
        certificate_end=certificate_end(session.endpoint),
        vcenter=str(content.about.apiType) == "VirtualCenter",
        api=tuple(int(part) for part in re.findall(r"\d+", str(content.about.apiVersion or ""))),
        attributes=frozenset(str(f.name) for f in fields),
        session_key=str(current.key) if current is not None else None,
        generation=generation,
    )


def certificate_end(where: Endpoint) -> float | None:
    """When the server's certificate ends (seconds since 1970). None: it is not verified, or could not be had again."""
    if not where.validate_certs:
        return None  # Python does not parse what it does not verify
    connection = http.client.HTTPSConnection(
        where.host, where.port, timeout=CONNECT_TIMEOUT, context=trust.context(True, where.ca_path, "connect to vCenter")
    )
    try:
        connection.connect()
        certificate = connection.sock.getpeercert() if isinstance(connection.sock, ssl.SSLSocket) else None
    except (OSError, http.client.HTTPException):
        return None  # it answered a moment ago: what is wrong, the next call tells
    finally:
        connection.close()
    end = (certificate or {}).get("notAfter")
    return float(ssl.cert_time_to_seconds(end)) if isinstance(end, str) else None
