# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where VMs may run: together (EQ), apart (NE), pinned to hosts (Pin), kept off hosts, not moved at all (Hold). Pure.

They come from inventory variables (one schema, parse()) and from the rules and groups of the clusters (of_clusters()).
Vendor reference for the latter: vSphere Web Services API, ClusterAffinityRuleSpec, ClusterAntiAffinityRuleSpec, ClusterVmHostRuleInfo.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Iterable, Mapping, Sequence

from ..errors import BadInput, FerryError, bounded
from .site_model import Site

KINDS = ("together", "apart", "pin", "avoid", "hold")
#: The words of SigmaSystemCenter for the same.
ALIASES = {"eq": "together", "ne": "apart"}
#: Custom attribute that names the group of a VM's definition.
GROUP = "ferry.group"
_KEYS = frozenset(("name", "kind", "vms", "group", "hosts", "required"))
_STEP = "read the constraints"


@dataclass(frozen=True)
class Rule:
    """One constraint; C(vms) and C(hosts) are MoRefs. Not C(required): a wish, which lowers a host's score when it is broken."""

    kind: str
    name: str
    vms: frozenset[str]
    hosts: frozenset[str] = frozenset()
    required: bool = True
    source: str = "inventory"

    def __str__(self) -> str:
        return f"{self.name} ({self.kind}, {self.source})"


@dataclass(frozen=True)
class Contradiction:
    """Constraints that cannot hold together. C(rules): their names."""

    text: str
    rules: tuple[str, ...]
    vms: frozenset[str] = frozenset()


def _words(value: Any) -> list[str]:
    return [str(v) for v in (value if isinstance(value, (list, tuple)) else [value])] if value not in (None, "") else []


def _parse_one(site: Site, number: int, data: Any, source: str, problems: list[str]) -> Rule | None:
    where = f"constraint {number}"
    if not isinstance(data, Mapping):
        problems.append(f"{where} is no mapping")
        return None
    kind = str(data.get("kind", "")).lower()
    kind = ALIASES.get(kind, kind)
    name = str(data.get("name") or f"{kind} {number}")
    where = f"{where} ({bounded(name, 80)})"
    unknown = sorted(str(k) for k in set(data) - _KEYS)
    if unknown:
        problems.append(f"{where}: not known: {', '.join(unknown)}")
    if kind not in KINDS:
        problems.append(f"{where}: kind is one of {', '.join(KINDS)} (or EQ, NE), not {bounded(kind, 40) or 'empty'}")
        return None
    vms: set[str] = set()
    hosts: set[str] = set()
    for wanted in _words(data.get("vms")):
        try:
            vms.add(site.vm(wanted).moref)
        except FerryError as e:
            problems.append(f"{where}: {e.message}")
    for group in _words(data.get("group")):
        found = {vm.moref for vm in site.vms.values() if vm.custom.get(GROUP) == group}
        if not found:
            problems.append(f"{where}: no VM is registered in the group {bounded(group, 80)}")
        vms |= found
    for wanted in _words(data.get("hosts")):
        try:
            hosts.add(site.host(wanted).moref)
        except FerryError as e:
            problems.append(f"{where}: {e.message}")
    if not _words(data.get("vms")) and not _words(data.get("group")):
        problems.append(f"{where}: vms or group is missing")
    if kind in ("pin", "avoid") and not _words(data.get("hosts")):
        problems.append(f"{where}: hosts is missing")
    if kind not in ("pin", "avoid") and data.get("hosts"):
        problems.append(f"{where}: hosts has no meaning for {kind}")
    required = data.get("required", True)
    if not isinstance(required, bool):
        problems.append(f"{where}: required is true or false")
    return Rule(kind, name, frozenset(vms), frozenset(hosts), bool(required), source)


def parse(site: Site, data: Sequence[Any] | None, *, source: str = "inventory") -> tuple[Rule, ...]:
    """The constraints in C(data), a list of mappings:

    C(kind): together (EQ), apart (NE), pin, avoid, hold; C(vms): names, paths, UUIDs or MoRefs; C(group): all VMs of such groups;
    C(hosts): for pin and avoid; C(name); C(required): false makes it a wish.

    :raises BadInput: lists everything that is wrong, VMs and hosts that are unknown or ambiguous included.
    """
    problems: list[str] = []
    rules = [_parse_one(site, i, d, source, problems) for i, d in enumerate(data or (), 1)]
    if problems:
        raise BadInput("The constraints cannot be used: " + "; ".join(problems) + ".", code="constraints", step=_STEP, problems=problems)
    return tuple(r for r in rules if r is not None)


def of_clusters(site: Site) -> tuple[Rule, ...]:
    """The enabled rules of all clusters. They count whether or not DRS is on: what somebody wrote down is meant."""
    kinds = {"together": "together", "apart": "apart", "run_on": "pin", "keep_off": "avoid"}
    return tuple(
        Rule(kinds[r.kind], r.name, frozenset(r.vms & site.vms.keys()), r.hosts, r.required, f"cluster {cluster.name}")
        for cluster in site.clusters.values()
        for r in cluster.rules
    )


class Rules:
    """All constraints of a site, by VM. C(all): as given. C(unit(vm)): the VMs that have to be on one host with C(vm), itself included."""

    def __init__(self, site: Site, rules: Iterable[Rule] = ()) -> None:
        self.site = site
        self.all = tuple(rules)
        self._units: dict[str, frozenset[str]] = {}
        self.apart: dict[str, dict[str, str]] = {}
        self._by_vm: dict[str, list[Rule]] = {}
        self._allowed: dict[str, frozenset[str] | None] = {}
        for rule in self.all:
            for vm in rule.vms:
                self._by_vm.setdefault(vm, []).append(rule)
            if not rule.required:
                continue
            if rule.kind == "together":
                joined = frozenset().union(rule.vms, *(self._units.get(v, frozenset()) for v in rule.vms))
                for vm in joined:
                    self._units[vm] = joined
            elif rule.kind == "apart":
                for vm in rule.vms:
                    others = self.apart.setdefault(vm, {})
                    for other in rule.vms - {vm}:
                        others.setdefault(other, rule.name)

    def of(self, vm: str) -> Sequence[Rule]:
        """The constraints that name the VM."""
        return self._by_vm.get(vm, ())

    def unit(self, vm: str) -> frozenset[str]:
        return self._units.get(vm) or frozenset((vm,))

    def held(self, vm: str) -> Rule | None:
        """The constraint that forbids to move the VM."""
        return next((r for r in self.of(vm) if r.kind == "hold" and r.required), None)

    def allowed(self, vm: str) -> frozenset[str] | None:
        """The hosts that pin and avoid leave to the VM; None for all."""
        if vm not in self._allowed:
            found: frozenset[str] | None = None
            for rule in self.of(vm):
                if rule.required and rule.kind in ("pin", "avoid"):
                    base = frozenset(self.site.hosts) if found is None else found
                    found = base & rule.hosts if rule.kind == "pin" else base - rule.hosts
            self._allowed[vm] = found
        return self._allowed[vm]

    def against(self, vm: str, host: str) -> list[str]:
        """Why pin, avoid and hold forbid the host to the VM; empty where they do not."""
        found = []
        for rule in self.of(vm):
            if not rule.required:
                continue
            if (rule.kind == "pin" and host not in rule.hosts) or (rule.kind == "avoid" and host in rule.hosts):
                found.append(f"constraint {rule}")
            elif rule.kind == "hold" and self.site.vms[vm].host != host:
                found.append(f"constraint {rule}: it is not to be moved")
        return found

    def wishes_broken(self, vm: str, host: str, there: Iterable[str]) -> list[Rule]:
        """Constraints that are not required, and that the VM on C(host) beside the VMs C(there) would break."""
        beside = set(there)
        found = []
        for rule in self.of(vm):
            if rule.required:
                continue
            others = rule.vms - {vm}
            if (
                (rule.kind == "pin" and host not in rule.hosts)
                or (rule.kind == "avoid" and host in rule.hosts)
                or (rule.kind == "apart" and others & beside)
                or (rule.kind == "together" and others - beside)
                or (rule.kind == "hold" and self.site.vms[vm].host != host)
            ):
                found.append(rule)
        return found

    def broken(self, where: Mapping[str, str | None]) -> list[str]:
        """The required constraints that the placement C(where) (host by VM) breaks, in words."""
        found = []
        for rule in self.all:
            if not rule.required:
                continue
            hosts = {vm: where.get(vm) for vm in rule.vms if where.get(vm)}
            if rule.kind == "together" and len(set(hosts.values())) > 1:
                found.append(f"{rule}: {self._named(hosts)} are on different hosts")
            elif rule.kind == "apart":
                for host in {h for h in hosts.values() if list(hosts.values()).count(h) > 1}:
                    found.append(f"{rule}: {self._named(v for v, h in hosts.items() if h == host)} are on {self.site.where(host)}")
            elif rule.kind in ("pin", "avoid"):
                wrong = [v for v, h in hosts.items() if (h in rule.hosts) == (rule.kind == "avoid")]
                if wrong:
                    found.append(f"{rule}: {self._named(wrong)} on the wrong host")
        return found

    def _named(self, vms: Iterable[str]) -> str:
        names = sorted(self.site.vms[v].name for v in vms)
        return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")

    def contradictions(self, hosts: Iterable[str] | None = None) -> list[Contradiction]:
        """Constraints that cannot hold together, whatever the machines can carry, with their names.

        :param hosts: MoRefs of the hosts that may be used; by default all.
        """
        usable = frozenset(self.site.hosts if hosts is None else hosts)
        found: list[Contradiction] = []
        found += self._apart_within_units()
        choice: dict[str, frozenset[str]] = {}
        for unit in {self.unit(vm) for vm in self._by_vm}:
            left, causes = self._choice(unit, usable)
            for vm in unit:
                choice[vm] = left
            if not left and causes:
                found.append(
                    Contradiction(
                        f"no host is left for {self._named(unit)}: {'; '.join(map(str, causes))}", tuple(r.name for r in causes), unit
                    )
                )
        for rule in self.all:
            if rule.kind == "apart" and rule.required and all(choice[v] for v in rule.vms):
                found += self._too_few(rule, choice)
        return sorted(found, key=lambda c: c.text)

    def _apart_within_units(self) -> list[Contradiction]:
        found = []
        for rule in self.all:
            if rule.kind != "apart" or not rule.required:
                continue
            for unit in {self.unit(v) for v in rule.vms}:
                pair = unit & rule.vms
                if len(pair) > 1:
                    together = [r for r in self.all if r.kind == "together" and r.required and r.vms & unit]
                    text = f"{self._named(pair)} are to be apart by {rule} and on one host by {'; '.join(map(str, together))}"
                    found.append(Contradiction(text, (rule.name, *(r.name for r in together)), pair))
        return found

    def _choice(self, unit: frozenset[str], usable: frozenset[str]) -> tuple[frozenset[str], list[Rule]]:
        """The hosts that pin, avoid and hold leave to VMs that have to be together, and the constraints that took the others."""
        left, causes = usable, []
        rules = {r for vm in unit for r in self.of(vm) if r.required}
        for rule in sorted(rules, key=lambda r: (r.kind, r.name)):
            before = left
            if rule.kind == "pin":
                left = left & rule.hosts
            elif rule.kind == "avoid":
                left = left - rule.hosts
            elif rule.kind == "hold":
                for vm in rule.vms & unit:
                    here = self.site.vms[vm].host
                    # a held VM on a host that is being drained is not the constraints' contradiction; it is said as the VM's reason
                    left = left & {here} if here in usable else left
            elif rule.kind == "together" and len(unit) > 1:
                causes.append(rule)
                continue
            if left != before:
                causes.append(rule)
        return left, [] if left else causes

    def _too_few(self, rule: Rule, choice: Mapping[str, frozenset[str]]) -> list[Contradiction]:
        """More VMs that have to be apart than hosts for them (Hall's condition, by a matching)."""
        taken: dict[str, str] = {}

        def place(vm: str, seen: set[str]) -> bool:
            for host in sorted(choice[vm]):
                if host not in seen:
                    seen.add(host)
                    if host not in taken or place(taken[host], seen):
                        taken[host] = vm
                        return True
            return False

        for vm in sorted(rule.vms):
            seen: set[str] = set()
            if not place(vm, seen):
                crowd = {v for v in rule.vms if choice[v] <= seen}
                pins = {r for v in crowd for m in self.unit(v) for r in self.of(m) if r.required and r.kind in ("pin", "avoid", "hold")}
                names = (rule.name, *sorted(r.name for r in pins))
                hosts = ", ".join(sorted(self.site.where(h) for h in seen)) or "no host"
                by = f" (with {'; '.join(sorted(map(str, pins)))})" if pins else ""
                text = f"{rule}{by}: {len(crowd)} VMs ({self._named(crowd)}) are to be apart on {len(seen)} hosts ({hosts})"
                return [Contradiction(text, names, frozenset(crowd))]
        return []

    def check(self, vms: Iterable[str] | None = None) -> None:
        """Nothing, where the constraints can hold together.

        :param vms: rules of clusters count only where they concern one of these VMs; what was given counts always.
        :raises BadInput: code contradiction; says which ones cannot.
        """
        found = self.contradictions()
        if vms is not None:
            mine = set(vms)
            given = {r.name for r in self.all if not r.source.startswith("cluster ")}
            found = [c for c in found if c.vms & mine or given & set(c.rules)]
        if found:
            raise BadInput(
                "The constraints cannot hold together: " + "; ".join(c.text for c in found) + ".",
                code="contradiction",
                step="check the constraints",
                next_command="change or remove one of the constraints that are named",
                contradictions=[{"text": bounded(c.text), "rules": list(c.rules)} for c in found],
            )


def rules_of(site: Site, data: Sequence[Any] | None = None) -> Rules:
    """All constraints of the site: C(data) as parse() reads it, and those of the clusters."""
    return Rules(site, (*parse(site, data), *of_clusters(site)))
