# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan of an evacuation: which VM goes where, in which order, and which cannot. Pure: no I/O, and the same for the same facts.

Sizes are MiB. Linked clones whose disks may hang on the same base are a chain: they go to one target, and a base that has to be copied there
is counted once. The API does not tell which base a clone hangs on; chain_key() says what is taken for one chain.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Iterable, Mapping, Sequence

from ..errors import BadInput, bounded
from .entities import Datastore, uuid_of

STEP = "plan the evacuation"
#: At a time, unless told otherwise. vCenter itself runs 8 Storage vMotions per datastore and 2 per host, and queues the others.
PER_TARGET, PER_SOURCE, PER_HOST = 2, 8, 2
ORDERS = ("small", "chain")

Key = tuple[str, str]


@dataclass(frozen=True)
class Item:
    """A VM on the source datastore.

    :param mb: what its move writes at most: the sizes of its own disks, bases left out.
    :param elsewhere_mb: how much of that is on other datastores and is gathered along.
    :param chain: the longest chain of its disks; above 1 it is a linked clone, or has snapshots.
    :param group: what it shares with the members of its chain; empty where it is in none.
    :param host: where it runs; empty where it does not.
    :param blocked: why it cannot be moved; empty where it can.
    :param note: what else people have to know.
    """

    href: str
    name: str
    vapp: str = ""
    vapp_href: str = ""
    vdc: str = ""
    org: str = ""
    is_template: bool = False
    host: str = ""
    mb: int = 0
    elsewhere_mb: int = 0
    chain: int = 1
    group: str = ""
    blocked: str = ""
    note: str = ""

    @cached_property
    def uuid(self) -> str:
        return uuid_of(self.href) or self.href

    @property
    def order(self) -> tuple[str, str, str, str, str]:
        """What makes every plan of the same facts the same."""
        return self.org, self.vdc, self.vapp, self.name, self.uuid


@dataclass(frozen=True)
class Limits:
    """How many relocations at a time."""

    per_target: int = PER_TARGET
    per_source: int = PER_SOURCE
    per_host: int = PER_HOST

    def total(self, targets: int) -> int:
        return max(1, min(self.per_source, self.per_target * targets))


@dataclass(frozen=True)
class Move:
    """One line of the plan. C(target) is None where the VM stays, and C(why) says why.

    :param wave: 0 is the canary; the others are what is under way at a time, were all moves equally long.
    """

    item: Item
    target: Datastore | None
    wave: int | None
    why: str = ""
    base_mb: int = 0


@dataclass
class Plan:
    """All VMs: those that move in the order in which they are begun, then those that stay."""

    moves: list[Move] = field(default_factory=list)
    stay: list[Move] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def canary(self) -> list[Move]:
        return [m for m in self.moves if m.wave == 0]

    @property
    def rest(self) -> list[Move]:
        return [m for m in self.moves if m.wave != 0]


def chain_key(org: str, first_disk_mb: int) -> str:
    """What linked clones of one base have in common as far as the API tells: the organization, and the size of the first disk (that of a
    linked clone cannot be changed). Chains that only look alike are kept together as well, which harms nothing."""
    return f"{uuid_of(org) or org}/{first_disk_mb}"


def ordered_chain(items: Iterable[Item]) -> list[Item]:
    """The members of a chain, the base before what hangs on it, small before large."""
    return sorted(items, key=lambda i: (not i.is_template, i.chain, i.mb, i.order))


@dataclass
class _Room:
    """What a target still takes. C(most_mb): all that is written on the source; no more than that can come from there."""

    target: Datastore
    reserve_mb: int
    most_mb: int
    need_mb: int = 0
    extra_mb: int = 0

    def used_after(self, need: int, extra: int) -> int:
        return self.target.used_mb + min(self.need_mb + need, self.most_mb + self.extra_mb + extra)

    def fits(self, need: int, extra: int) -> bool:
        return self.used_after(need, extra) <= self.target.total_mb - self.reserve_mb

    def promised(self, need: int) -> int:
        return max(self.target.provisioned_mb, self.target.used_mb) + self.need_mb + need

    def within_promise(self, need: int) -> bool:
        """Whether it would be large enough were every thin disk full."""
        return self.promised(need) <= self.target.total_mb - self.reserve_mb

    def rank(self, need: int, extra: int) -> tuple[bool, float, str, str]:
        """The lowest is the best: one that is not overcommitted, then the emptiest afterwards."""
        total = self.target.total_mb or 1
        return not self.within_promise(need), (self.target.used_mb + self.need_mb + need) / total, self.target.name, self.target.href

    def take(self, need: int, extra: int) -> None:
        self.need_mb += need
        self.extra_mb += extra


@dataclass(frozen=True)
class _Unit:
    """What goes to one target together."""

    items: list[Item]
    base_mb: int = 0

    @property
    def mb(self) -> int:
        return sum(i.mb for i in self.items) + self.base_mb

    @property
    def extra_mb(self) -> int:
        return sum(i.elsewhere_mb for i in self.items) + self.base_mb

    @property
    def order(self) -> tuple[str, str, str, str, str]:
        return self.items[0].order


def _units(items: Sequence[Item], bases: Mapping[str, int]) -> list[_Unit]:
    groups: dict[str, list[Item]] = {}
    units = []
    for item in items:
        if item.group:
            groups.setdefault(item.group, []).append(item)
        else:
            units.append(_Unit([item]))
    # a template that moves along is the base itself, and no other copy is made
    for key in sorted(groups):
        members = ordered_chain(groups[key])
        units.append(_Unit(members, 0 if members[0].is_template else bases.get(key, 0)))
    return units


def make_plan(
    items: Iterable[Item],
    source: Datastore,
    targets: Sequence[Datastore],
    *,
    limits: Limits | None = None,
    reserve_percent: float = 5.0,
    canary: Sequence[str] = ("1",),
    order: str = "small",
    bases: Mapping[str, int] | None = None,
    kept: Mapping[str, Key] | None = None,
) -> Plan:
    """Where every VM goes, and in which order.

    :param canary: one number, so many (the smallest that stand alone first); else names, hrefs or urns of VMs.
    :param order: C(small): small before large; C(chain): chains first, then small before large.
    :param bases: MiB of the base, not on the source itself, that each chain needs a copy of.
    :param kept: the targets that an earlier run has chosen, by UUID of the VM; they stay while there is room.
    :raises BadInput: a canary that is not there or cannot be moved.
    """
    limits, bases, kept = limits or Limits(), bases or {}, kept or {}
    everything = sorted(items, key=lambda i: i.order)
    plan = Plan(stay=[Move(i, None, None, i.blocked) for i in everything if i.blocked])
    rooms = {t.key: _Room(t, int(t.total_mb * reserve_percent / 100), source.used_mb) for t in targets}
    chosen: dict[str, tuple[Datastore, str, int]] = {}
    placed: list[_Unit] = []
    units = _units([i for i in everything if not i.blocked], bases)
    for unit in sorted(units, key=lambda u: (not _kept(u, kept, rooms), -u.mb, u.order)):
        room = _choose(unit, rooms, kept)
        if room is None:
            plan.stay += [Move(i, None, None, _no_room(unit, rooms.values())) for i in unit.items]
            continue
        room.take(unit.mb, unit.extra_mb)
        placed.append(unit)
        for n, item in enumerate(unit.items):
            chosen[item.uuid] = (room.target, _why(unit, item), unit.base_mb if n == 0 else 0)
    placed.sort(key=lambda u: (order == "chain" and len(u.items) == 1, u.mb, u.order))
    # clones wait for their base, so the bases are begun before everything else
    bases_first = [i for u in placed if len(u.items) > 1 for i in u.items if i.is_template]
    based = {i.uuid for i in bases_first}
    sequence = [*bases_first, *(i for u in placed for i in u.items if i.uuid not in based)]
    first = _canary(canary, sequence, everything, {m.item.uuid: m.why for m in plan.stay})
    slots = limits.total(len(targets))
    canaries = {c.uuid for c in first}
    rest = [i for i in sequence if i.uuid not in canaries]
    for item in first:
        plan.moves.append(
            Move(item, chosen[item.uuid][0], 0, ", ".join(filter(None, ("canary", *chosen[item.uuid][1:2]))), chosen[item.uuid][2])
        )
    for n, item in enumerate(rest):
        target, why, base_mb = chosen[item.uuid]
        plan.moves.append(Move(item, target, 1 + n // slots, why, base_mb))
    plan.warnings = [
        f"The datastore {bounded(r.target.name, 120)} would be too small, less the reserve, were every thin disk on it full."
        for r in rooms.values()
        if r.need_mb and not r.within_promise(0)
    ]
    return plan


def _kept(unit: _Unit, kept: Mapping[str, Key], rooms: Mapping[Key, _Room]) -> bool:
    return any(kept.get(i.uuid) in rooms for i in unit.items)


def _choose(unit: _Unit, rooms: Mapping[Key, _Room], kept: Mapping[str, Key]) -> _Room | None:
    for item in unit.items:
        room = rooms.get(kept.get(item.uuid, ("", "")))
        if room is not None and room.fits(unit.mb, unit.extra_mb):
            return room
    fitting = [r for r in rooms.values() if r.fits(unit.mb, unit.extra_mb)]
    return min(fitting, key=lambda r: r.rank(unit.mb, unit.extra_mb)) if fitting else None


def _no_room(unit: _Unit, rooms: Iterable[_Room]) -> str:
    best = max((r.target.total_mb - r.reserve_mb - r.used_after(0, 0) for r in rooms), default=0)
    what = f"its chain of {len(unit.items)} VMs takes" if len(unit.items) > 1 else "it takes"
    return f"no room: {what} up to {unit.mb} MB, and no target has more than {max(0, best)} MB left"


def _why(unit: _Unit, item: Item) -> str:
    words = [item.note] if item.note else []
    if len(unit.items) > 1:
        words.append("base of its chain" if item.is_template else f"with its chain of {len(unit.items)}")
    if unit.base_mb and item is unit.items[0]:
        words.append(f"a base of {unit.base_mb} MB is copied along")
    if item.elsewhere_mb:
        words.append(f"{item.elsewhere_mb} MB from other datastores")
    return ", ".join(words)


def _canary(wanted: Sequence[str], sequence: list[Item], everything: list[Item], stay: Mapping[str, str]) -> list[Item]:
    if not wanted:
        return []
    if len(wanted) == 1 and wanted[0].strip().isdigit():
        easy = sorted(sequence, key=lambda i: (i.is_template, bool(i.group), i.mb, i.order))
        return easy[: int(wanted[0])]
    found: list[Item] = []
    for name in wanted:
        identity = uuid_of(name) if "/" in name or name.startswith("urn:") else ""
        same = [i for i in everything if (i.uuid == identity if identity else i.name == name)]
        if len(same) != 1:
            listed = "; ".join(f"{i.name} (vApp {i.vapp}, vDC {i.vdc}, {i.href})" for i in same[:10])
            raise BadInput(
                f"{len(same) or 'No'} VMs on the datastore are meant by the canary {bounded(name, 120)}{': ' + listed if same else ''}.",
                step=STEP,
                next_command="name it by its href" if same else None,
            )
        if same[0].uuid in stay:
            raise BadInput(f"The canary {bounded(name, 120)} cannot be moved: {stay[same[0].uuid]}.", vm=same[0].name, step=STEP)
        if same[0] not in found:
            found.append(same[0])
    return found
