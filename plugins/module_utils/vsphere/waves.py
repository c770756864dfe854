# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which moves of a plan may be under way at the same time. Pure.

All moves of a wave are counted as if they were under way together: each VM takes memory on both hosts and space on both datastores,
and stands on both hosts for those that have to be apart from it. So any of them may end first, or fail.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Mapping, Sequence

from .candidates import Fitting, Way
from .capacity import Load
from .rebalance import Step
from .site_model import Site


@dataclass(frozen=True)
class Limits:
    """Moves under way at once: per host (its source or its target), per datastore (from or to which files are copied).

    vSphere itself runs 4 (1 GbE) or 8 (10 GbE) vMotions and 2 storage vMotions per host, and 8 of the latter per datastore
    (vSphere, "Limits on simultaneous migrations"); what is more waits in its queue and holds its locks meanwhile.
    """

    per_host: int = 4
    per_datastore: int = 2


@dataclass(frozen=True)
class Move:
    """One VM's move. C(source), C(target), C(stores): MoRefs. C(mb): MiB that travel, memory of a running VM and files."""

    vm: str
    name: str
    source: str | None
    source_name: str
    target: str
    target_name: str
    method: str
    why: str
    mb: int
    wave: int = 1
    stores: Mapping[str, str] = field(default_factory=dict)
    datastore: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """For a module's result."""
        return {
            "vm": self.name,
            "moref": self.vm,
            "from": self.source_name,
            "to": self.target_name,
            "method": self.method,
            "datastore": self.datastore,
            "why": self.why,
            "mb": self.mb,
            "wave": self.wave,
        }


def _move(site: Site, vm: str, step: Step, way: Way, why: str, wave: int) -> Move:
    facts = site.vms[vm]
    store = next(iter(way.stores.values()), None)
    memory = facts.memory_mb if way.method == "hot" else 0
    return Move(
        vm=vm,
        name=facts.name,
        source=step.before[vm],
        source_name=site.where(step.before[vm]),
        target=step.to,
        target_name=site.where(step.to),
        method=way.method,
        why="; ".join([why, *way.notes]),
        mb=memory + (way.copied >> 20),
        wave=wave,
        stores=dict(way.stores),
        datastore=site.datastores[store].name if store in site.datastores else None,
    )


class _Wave:
    """The moves of one wave, counted in C(load) on both sides."""

    def __init__(self, fitting: Fitting, load: Load, limits: Limits) -> None:
        self.fitting, self.load, self.limits = fitting, load, limits
        self.site = fitting.site
        self.moves: list[tuple[str, Step]] = []
        self.hosts: dict[str, int] = {}
        self.stores: dict[str, int] = {}

    def fits(self, vm: str, step: Step) -> bool:
        """Whether the move may begin while the others are under way."""
        facts, way = self.site.vms[vm], step.ways[vm]
        if any(vm == v for v, _s in self.moves):
            return False
        for host in (step.before[vm], step.to):
            if host is not None and self.hosts.get(host, 0) >= self.limits.per_host:
                return False
        for store in {*way.stores, *way.stores.values()}:
            if self.stores.get(store, 0) >= self.limits.per_datastore:
                return False
        if self.load.refused([facts], step.to) or self.fitting.neighbours([facts], step.to, self.load):
            return False
        files = self.load.files(vm)
        return all(
            self.load.lacks(t, sum(files.get(s, 0) for s, to in way.stores.items() if to == t)) is None for t in set(way.stores.values())
        )

    def add(self, vm: str, step: Step) -> None:
        facts, way = self.site.vms[vm], step.ways[vm]
        self.moves.append((vm, step))
        self.load.arrive(facts, step.to)
        for host in (step.before[vm], step.to):
            if host is not None:
                self.hosts[host] = self.hosts.get(host, 0) + 1
        files = self.load.files(vm)
        for source, target in way.stores.items():
            self.load.free[target] -= files.get(source, 0)
        for store in {*way.stores, *way.stores.values()}:
            self.stores[store] = self.stores.get(store, 0) + 1

    def end(self) -> None:
        """All of them have arrived."""
        for vm, step in self.moves:
            facts, way = self.site.vms[vm], step.ways[vm]
            self.load.leave(facts, step.to)
            self.load.move(facts, step.to)
            if way.stores:
                files = self.load.files(vm)
                after: dict[str, int] = {}
                for store, size in files.items():
                    to = way.stores.get(store, store)
                    after[to] = after.get(to, 0) + size
                    if to != store:
                        self.load.free[to] += size  # store() counts it again
                self.load.store(vm, after)


class _Waiting:
    """The moves that wait for a later wave, and what a move that goes before them must leave alone."""

    def __init__(self, fitting: Fitting) -> None:
        self.rules = fitting.rules
        self.moves: list[tuple[str, Step]] = []
        self._vms: set[str] = set()
        self._targets: set[str] = set()
        self._ways: set[tuple[str | None, str]] = set()

    def add(self, vm: str, step: Step) -> None:
        self.moves.append((vm, step))
        self._vms.add(vm)
        self._targets.add(step.to)
        self._ways.add((step.before[vm], step.to))

    def minds(self, vm: str, step: Step) -> bool:
        """Whether one of them would find its place taken, or a constraint ties one to the VM."""
        if step.to in self._targets or vm in self._vms or (step.to, step.before[vm]) in self._ways:
            return True
        return not self._vms.isdisjoint(self.rules.unit(vm)) or not self._vms.isdisjoint(self.rules.apart.get(vm, {}))


def schedule(fitting: Fitting, load: Load, steps: Sequence[Step], limits: Limits, why: Mapping[str, str]) -> list[Move]:
    """The moves of C(steps), each with its wave (1, 2 ...). A later one goes first only where nothing that waits can mind.

    :param load: as things are before the first; as they are after the last, when this returns.
    :param why: by VM.
    """
    pending = [(vm, step) for step in steps for vm in step.ways]
    moves: list[Move] = []
    number = 0
    while pending:
        number += 1
        wave, waiting = _Wave(fitting, load, limits), _Waiting(fitting)
        size: dict[int, int] = {}
        for _vm, step in pending:
            size[id(step)] = size.get(id(step), 0) + 1
        for vm, step in pending:
            # VMs that have to be together begin in one wave, where the limit lets them
            rest = size.pop(id(step), 0)
            crowded = rest > 1 and bool(wave.moves) and not _whole(wave, step, rest)
            if crowded or waiting.minds(vm, step) or not wave.fits(vm, step):
                waiting.add(vm, step)
            else:
                wave.add(vm, step)
        pending = waiting.moves
        if not wave.moves:  # what fits by itself always fits alone; the limits are at least one
            wave.add(*pending.pop(0))
        for vm, step in wave.moves:
            reason = "makes room" if step.makes_room else why.get(vm, "")
            moves.append(_move(fitting.site, vm, step, step.ways[vm], reason, number))
        wave.end()
    return moves


def _whole(wave: _Wave, step: Step, rest: int) -> bool:
    """Whether the limits leave room for so many moves to the step's host."""
    hosts = {step.to, *(h for h in step.before.values() if h is not None)}
    return all(wave.hosts.get(h, 0) + rest <= wave.limits.per_host for h in hosts)


def table(moves: Sequence[Move]) -> list[str]:
    """The plan for people: VM, from, to, method, MB, why; one line each under a heading."""
    if not moves:
        return ["nothing to move"]
    heads = ("wave", "VM", "from", "to", "method", "MB", "why")
    rows = [
        (str(m.wave), m.name, m.source_name, m.target_name, m.method + (f" to {m.datastore}" if m.datastore else ""), str(m.mb), m.why)
        for m in moves
    ]
    widths = [max(len(r[i]) for r in [heads, *rows]) for i in range(len(heads) - 1)]
    return ["  ".join([*(cell.ljust(w) for cell, w in zip(r, widths, strict=False)), r[-1]]).rstrip() for r in [heads, *rows]]
