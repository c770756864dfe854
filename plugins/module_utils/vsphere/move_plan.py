# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which way a VM is moved, and where to. Pure functions of what was read; nothing is asked of the server."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Iterable, Mapping, Sequence

from ..errors import BadInput
from .disks import find_disk
from .move_checks import MIB, Check, Forbids, Target, judge, load
from .move_subject import Subject, disk_format
from .site import Datastore, Host, Site

METHODS = ("auto", "hot", "cold", "storage", "move", "failover")
FORMATS = ("thin", "thick", "eagerZeroedThick")


@dataclass(frozen=True)
class Wish:
    """What was asked for. Names are as the user gave them. C(timeout) and C(shutdown_timeout): seconds."""

    method: str = "auto"
    host: str | None = None
    datastore: str | None = None
    disks: tuple[str, ...] = ()
    format: str | None = None
    pool: str | None = None
    cluster: str | None = None
    folder: str | None = None
    network_map: Mapping[str, str] = field(default_factory=dict)
    shutdown_timeout: float = 600.0
    on_timeout: str = "fail"
    timeout: float = 3600.0
    reserve_percent: float = 5.0


#: Method, host and datastore (MoRefs) of a way, and what the server has against some of them.
WayKey = tuple[str, str, str]
Refused = Mapping[WayKey, Sequence[Check]]


def way_key(method: str, target: Target) -> WayKey:
    return method, target.host.moref, target.datastore.moref if target.datastore is not None else ""


@dataclass(frozen=True)
class Way:
    """One way to move the VM. C(rank): the lower the gentler."""

    method: str
    target: Target
    checks: tuple[Check, ...]
    rank: int = 0

    @property
    def key(self) -> WayKey:
        return way_key(self.method, self.target)

    @property
    def fits(self) -> bool:
        return all(c.passed for c in self.checks)

    @property
    def reasons(self) -> list[str]:
        """Why it does not work."""
        return [f"{c.id}: {c.detail}" for c in self.checks if not c.passed]


@dataclass(frozen=True)
class Plan:
    """C(method): none where the VM is there already. C(candidates): host, cluster, fits, reasons. C(why): in words.
    C(methods): of auto, each method that was thought of: method, fits, reasons."""

    method: str
    target: Target | None
    checks: tuple[Check, ...]
    candidates: tuple[dict[str, Any], ...]
    methods: tuple[dict[str, Any], ...]
    why: str
    bytes: int = 0

    @property
    def fits(self) -> bool:
        return all(c.passed for c in self.checks)


def _check_wish(subject: Subject, wish: Wish) -> None:
    """Refuse what cannot be meant."""
    name = subject.vm.name
    if wish.disks and not (wish.datastore or wish.format):
        raise BadInput("disks needs a datastore, or a format.", vm=name, step="plan the move")
    if wish.disks and wish.method not in ("auto", "storage"):
        raise BadInput(f"Single disks are moved by the method storage, not by {wish.method}.", vm=name, step="plan the move")
    if wish.method == "storage" and not (wish.datastore or wish.format):
        raise BadInput("The method storage needs a datastore, or a format.", vm=name, step="plan the move")
    if not 0 <= wish.reserve_percent < 100:
        raise BadInput("reserve_percent is a part of a datastore, 0 to 99.", vm=name, step="plan the move")


def wanted_host(site: Site, wish: Wish) -> Host | None:
    """The host that was asked for; BadInput for one that is unknown or stands for several."""
    if wish.host is None:
        return None
    cluster = wish.cluster
    if cluster and not any(h.moref == wish.host for h in site.hosts.values()):
        named = _cluster_name(site, cluster)
        if any(h.name == wish.host and h.cluster_name == named for h in site.hosts.values()):
            return site.host(f"{named}/{wish.host}")
        raise BadInput(f"There is no host {wish.host} in the cluster {named}.", code="unknown", step="find the host", unknown=wish.host)
    return site.host(wish.host)


def _cluster_name(site: Site, wanted: str) -> str:
    found = [c.name for moref, c in site.clusters.items() if wanted in (moref, c.name)]
    if not found:
        there = ", ".join(sorted(c.name for c in site.clusters.values())) or "none"
        raise BadInput(f"There is no cluster {wanted}. There are: {there}.", code="unknown", step="find the cluster", unknown=wanted)
    return found[0]


def _datastore(site: Site, wish: Wish, host: Host | None) -> Datastore | None:
    if wish.datastore is None:
        return None
    if host is not None and any(d.name == wish.datastore and host.moref in d.hosts for d in site.datastores.values()):
        return site.datastore(wish.datastore, host.moref)
    return site.datastore(wish.datastore)


def target_of(subject: Subject, site: Site, wish: Wish, host: Host, datastore: Datastore | None) -> Target:
    """The Target for C(host), with C(datastore) for the whole VM or for the disks that were asked for."""
    disks: dict[int, Datastore] = {}
    if wish.disks:
        for text in wish.disks:
            disk = find_disk(subject.disks, text, subject.vm.name)
            to = datastore or site.datastores.get(disk.datastore_moref or "")
            if to is not None:
                disks[disk.key] = to
    elif wish.format is not None and datastore is None:
        found = {d.key: site.datastores.get(d.datastore_moref or "") for d in subject.disks}
        disks = {key: to for key, to in found.items() if to is not None}
    return Target(
        host=host,
        datastore=None if disks else datastore,
        disks=disks,
        format=wish.format,
        network_map=wish.network_map,
        reserve_percent=wish.reserve_percent,
    )


def stored_so(subject: Subject, target: Target) -> bool:
    """Whether every file of the VM is where C(target) wants it, in its format."""
    for disk in subject.disks:
        to = target.of_disk(disk.key)
        if to is not None and to.moref != disk.datastore_moref:
            return False
        if to is not None and target.format is not None and disk_format(disk) not in (target.format, "other"):
            return False
    return target.datastore is None or bool(target.disks) or target.datastore.moref == subject.vmx_datastore


def choose_datastore(subject: Subject, site: Site, wish: Wish, host: Host, *, local: bool) -> Datastore | None:
    """The datastore of C(host) that the whole VM would go to: one with room, a local one first where C(local), then the one with most room."""
    found = []
    for moref in sorted(host.datastores):
        store = site.datastores.get(moref)
        if store is None or not store.accessible or store.maintenance not in ("", "normal"):
            continue
        target = Target(host, store, format=wish.format, reserve_percent=wish.reserve_percent)
        need = load(subject, target).get(moref, 0)
        spare = store.free - int(store.capacity * wish.reserve_percent / 100) - need
        found.append((spare < 0, local and not store.local, -spare, store.name, store))
    return min(found, key=lambda f: f[:4])[4] if found else None


def _ways(subject: Subject, site: Site, wish: Wish, host: Host, forbids: Forbids | None, refused: Refused) -> list[Way]:
    """The ways to C(host) that C(wish) allows, the gentlest first."""
    asked = _datastore(site, wish, host)
    found: list[Way] = []

    def add(method: str, datastore: Datastore | None) -> Way:
        target = target_of(subject, site, wish, host, datastore)
        checks = judge(subject, site, target, method, on_timeout=wish.on_timeout, forbids=forbids)
        if method == "move" and datastore is None and any(c.id == "datastore.access" and not c.passed for c in checks):
            checks = [*checks, Check("datastore.choice", False, f"{host.name} has no datastore that could take it")]
        way = Way(method, target, tuple(checks), 2 if method == "move" else 1 if datastore is not None else 0)
        way = replace(way, checks=(*way.checks, *refused.get(way.key, ())))
        found.append(way)
        return way

    if wish.method in ("hot", "cold"):
        add(wish.method, asked)
    elif wish.method == "move":
        add("move", asked or choose_datastore(subject, site, wish, host, local=True))
    else:
        gentle = "hot" if subject.power == "on" else "cold"
        first = add(gentle, asked)
        to = asked
        if asked is None and any(c.id == "datastore.access" and not c.passed for c in first.checks):
            to = choose_datastore(subject, site, wish, host, local=True)
            if to is not None:
                add(gentle, to)
        if subject.power == "on":
            add("move", to)
    return found


def score(subject: Subject, site: Site, way: Way) -> tuple[Any, ...]:
    """The lower the better: the gentlest way, the fewest bytes, the same cluster, then the host with most memory, then most CPU, free after it."""
    host, source = way.target.host, site.hosts.get(subject.host or "")
    total = max(1, host.memory_mb_total)
    memory = (host.memory_mb_used + subject.memory_mb) / total
    return (
        way.rank,
        sum(load(subject, way.target).values()) // (1 << 30),
        0 if source is not None and host.cluster == source.cluster else 1,
        round(memory, 2),
        round(host.cpu_mhz_used / max(1, host.cpu_mhz_total), 2),
        host.name,
        host.moref,
    )


def _candidate(host: Host, ways: Sequence[Way], reasons: Iterable[str] = ()) -> dict[str, Any]:
    good = next((w for w in ways if w.fits), None)
    told = list(reasons) or ([] if good else list(dict.fromkeys(r for w in ways[:1] for r in w.reasons)))
    return {
        "host": host.name,
        "moref": host.moref,
        "cluster": host.cluster_name,
        "fits": good is not None and not told,
        "method": good.method if good else None,
        "datastore": good.target.datastore.name if good and good.target.datastore else None,
        "reasons": told,
    }


def _methods(ways: Sequence[Way]) -> tuple[dict[str, Any], ...]:
    return tuple(
        {
            "method": w.method,
            "datastore": w.target.datastore.name if w.target.datastore else None,
            "fits": w.fits,
            "reasons": w.reasons,
        }
        for w in ways
    )


def _dead(subject: Subject, source: Host) -> list[dict[str, Any]]:
    """What auto says of failover, where the VM's host does not answer."""
    if source.connected:
        return []
    why = f"{source.name} is not connected; failover is never taken by auto: ask for it, and it proves first that the host is dead"
    return [{"method": "failover", "datastore": None, "fits": False, "reasons": [why]}]


def _none(why: str, target: Target | None = None, candidates: tuple[dict[str, Any], ...] = ()) -> Plan:
    return Plan("none", target, (Check("needed", True, why),), candidates, (), why)


def _storage(subject: Subject, site: Site, wish: Wish, source: Host, forbids: Forbids | None) -> Plan:
    target = target_of(subject, site, wish, source, _datastore(site, wish, source))
    if stored_so(subject, target):
        return _none("its files are there already", target)
    checks = judge(subject, site, target, "storage", on_timeout=wish.on_timeout, forbids=forbids)
    return Plan("storage", target, tuple(checks), (), (), "other datastore, same host", sum(load(subject, target).values()))


def plan(subject: Subject, site: Site, wish: Wish, forbids: Forbids | None = None, refused: Refused | None = None) -> Plan:
    """The plan for C(wish) (not failover, which failover.py plans). Its C(fits) is False where a check has failed.

    :param refused: what the server has said against ways that were thought of before.
    :raises BadInput: a name that is unknown or stands for several, or options that do not go together.
    """
    _check_wish(subject, wish)
    source = site.hosts.get(subject.host or "")
    wanted = wanted_host(site, wish)
    if source is None:
        raise BadInput("The VM's host cannot be told.", vm=subject.vm.name, step="plan the move")
    moves_storage = bool(wish.datastore or wish.format)
    stays = wanted is not None and wanted.moref == source.moref
    if wish.method == "storage" and wanted is not None and not stays:
        raise BadInput(
            f"The method storage leaves the VM on its host {source.name}; hot or cold with a datastore changes both.",
            vm=subject.vm.name,
            step="plan the move",
        )
    in_cluster = wish.cluster is not None and source.cluster_name == _cluster_name(site, wish.cluster)
    here = wish.method == "auto" and wanted is None and moves_storage and (wish.cluster is None or in_cluster)
    in_place = None
    if wish.method == "storage" or (stays and moves_storage) or here:
        in_place = _storage(subject, site, wish, source, forbids)
        if in_place.fits or wish.method == "storage" or stays or wish.disks:
            return in_place
    if stays:
        return _none(f"it is on {source.name} already")
    if wanted is None and in_cluster and wish.method == "auto" and _healthy(source):
        return _none(f"it is in the cluster {source.cluster_name} already")
    hosts = [wanted] if wanted is not None else _others(site, wish, source)
    ways = {h.moref: _ways(subject, site, wish, h, forbids, refused or {}) for h in hosts}
    candidates = tuple(_candidate(site.hosts[m], w) for m, w in ways.items())
    fitting = [w for found in ways.values() for w in found if w.fits]
    if not fitting:
        if in_place is not None:
            return replace(in_place, candidates=candidates)
        if wanted is None:
            none = Check(
                "host.choice", False, f"none of {len(hosts)} hosts fits: " + ("; ".join(_short(c) for c in candidates) or "there is none")
            )
            return Plan(wish.method, None, (none,), candidates, (), none.detail)
        first = ways[wanted.moref]
        return Plan(
            first[-1].method, first[-1].target, first[-1].checks, candidates, (*_methods(first), *_dead(subject, source)), "no way works"
        )
    best = min(fitting, key=lambda w: score(subject, site, w))
    order = {m["moref"]: i for i, m in enumerate(candidates)}
    ranked = {w.target.host.moref: score(subject, site, w) for w in sorted(fitting, key=lambda w: score(subject, site, w), reverse=True)}
    candidates = tuple(sorted(candidates, key=lambda c: (not c["fits"], ranked.get(c["moref"], ()), order[c["moref"]])))
    size = sum(load(subject, best.target).values())
    return Plan(best.method, best.target, best.checks, candidates, _methods(ways[best.target.host.moref]), _why(best, wanted, size), size)


def _healthy(host: Host) -> bool:
    return host.connected and not host.maintenance and host.power in ("on", "poweredOn")


def _others(site: Site, wish: Wish, source: Host) -> list[Host]:
    """The hosts to choose from: of the cluster that was asked for, else of the VM's datacenter."""
    hosts = [h for h in site.hosts.values() if h.moref != source.moref]
    if wish.cluster is not None:
        name = _cluster_name(site, wish.cluster)
        hosts = [h for h in hosts if h.cluster_name == name]
    else:
        hosts = [h for h in hosts if h.datacenter == source.datacenter]
    return sorted(hosts, key=lambda h: (h.name, h.moref))


def _short(candidate: Mapping[str, Any]) -> str:
    return f"{candidate['host']} ({'; '.join(candidate['reasons'][:3])})"


def _why(way: Way, wanted: Host | None, size: int) -> str:
    words = {
        "hot": "it runs and goes on running",
        "cold": "it does not run",
        "move": "it is shut down, moved and booted",
    }
    told = words.get(way.method, way.method)
    if size:
        told += f", {size // MIB} MB are written"
    return told + ("" if wanted is not None else f"; {way.target.host.name} is the best of those that fit")
