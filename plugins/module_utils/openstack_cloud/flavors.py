# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which flavor a virtual machine gets: the one with the fewest surplus. Pure: it works on rows of Nova's flavor list."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Iterable, Mapping

from ..errors import BadInput, bounded

#: Extra specs that give a server special hardware or a reserved place. Such a flavor is never chosen, only named.
SPECIAL = ("pci_passthrough:", "resources:", "resources", "trait:", "trait", "aggregate_instance_extra_specs:", "accel:")


_Waste = tuple[float, bool, int, int, str, str]


@dataclass(frozen=True)
class Choice:
    """A flavor. C(memory_mb): MiB; C(disk_gb): GiB of local root disk, which a server that boots from a volume does not use."""

    id: str
    name: str
    cpus: int
    memory_mb: int
    disk_gb: int
    surplus_cpus: int
    surplus_memory_mb: int

    def as_dict(self) -> dict[str, Any]:
        return dict(self.__dict__)


def _number(value: object) -> int:
    try:
        return int(str(value or 0))
    except ValueError:
        return 0


def _choice(row: Mapping[str, Any], cpus: int, memory_mb: int) -> Choice:
    have_cpus, have_memory = _number(row.get("vcpus")), _number(row.get("ram"))
    return Choice(
        id=str(row.get("id")),
        name=str(row.get("name") or row.get("original_name") or row.get("id")),
        cpus=have_cpus,
        memory_mb=have_memory,
        disk_gb=_number(row.get("disk")),
        surplus_cpus=have_cpus - cpus,
        surplus_memory_mb=have_memory - memory_mb,
    )


def _special(row: Mapping[str, Any]) -> bool:
    return any(str(key).startswith(SPECIAL) for key in row.get("extra_specs") or {})


def _waste(choice: Choice, row: Mapping[str, Any], cpus: int, memory_mb: int, suits: bool) -> _Waste:
    """Surplus of processors and memory, each as a share of what is asked for; then what does not suit; then unused disks; then the
    name, so that ties are stable."""
    share = choice.surplus_cpus / max(cpus, 1) + choice.surplus_memory_mb / max(memory_mb, 1)
    unused = _number(row.get("OS-FLV-EXT-DATA:ephemeral")) * 1024 + _number(row.get("swap"))
    return (round(share, 9), not suits, choice.disk_gb, unused, choice.name, choice.id)


def named(flavors: Iterable[Mapping[str, Any]], wanted: str, cpus: int = 0, memory_mb: int = 0) -> Choice:
    """The flavor with this name or id, whatever its size.

    :raises BadInput: there is none, or several have the name.
    """
    rows = list(flavors)
    found = [r for r in rows if str(r.get("id")) == wanted] or [r for r in rows if r.get("name") == wanted]
    if len(found) != 1:
        many = "There are several flavors" if found else "There is no flavor"
        names = ", ".join(sorted(f"{bounded(r.get('name'), 60)} ({r.get('id')})" for r in (found or rows))[:10])
        raise BadInput(f"{many} named {bounded(wanted, 80)}. There are: {names or 'none at all'}.", code="no_flavor")
    return _choice(found[0], cpus, memory_mb)


def fit(
    flavors: Iterable[Mapping[str, Any]],
    cpus: int,
    memory_mb: int,
    disk_gb: int = 0,
    *,
    suits: Callable[[Mapping[str, Any]], bool] = lambda row: True,
) -> Choice:
    """The flavor with the fewest surplus that has at least this much.

    :param memory_mb: MiB.
    :param disk_gb: GiB of local root disk that are needed; 0 for a server that boots from a volume.
    :param suits: of flavors of the same surplus, those whose row this is true of go first.
    :raises BadInput: none fits; lists the nearest.
    """
    rows = [r for r in flavors if not r.get("OS-FLV-DISABLED:disabled")]
    fitting: list[tuple[_Waste, Choice]] = []
    special: list[tuple[_Waste, Choice]] = []
    for row in rows:
        choice = _choice(row, cpus, memory_mb)
        if choice.surplus_cpus < 0 or choice.surplus_memory_mb < 0 or choice.disk_gb < disk_gb:
            continue
        (special if _special(row) else fitting).append((_waste(choice, row, cpus, memory_mb, suits(row)), choice))
    if fitting:
        return min(fitting, key=lambda pair: pair[0])[1]
    need = f"{cpus} processors and {memory_mb} MiB" + (f" and {disk_gb} GiB of disk" if disk_gb else "")
    if special:
        names = ", ".join(sorted(c.name for _waste_of, c in special)[:5])
        raise BadInput(f"Only flavors for special hardware have {need}: {names}. Name one of them if it is meant.", code="no_flavor")
    choices = [_choice(r, cpus, memory_mb) for r in rows]
    choices.sort(key=lambda c: (_missing(c, cpus, memory_mb, disk_gb), c.name, c.id))
    near = ", ".join(f"{c.name} ({c.cpus} processors, {c.memory_mb} MiB, {c.disk_gb} GiB)" for c in choices[:3])
    raise BadInput(f"No flavor has {need}. Nearest: {near or 'there are no flavors at all'}.", code="no_flavor")


def _missing(choice: Choice, cpus: int, memory_mb: int, disk_gb: int) -> float:
    return (
        max(-choice.surplus_cpus, 0) / max(cpus, 1)
        + max(-choice.surplus_memory_mb, 0) / max(memory_mb, 1)
        + max(disk_gb - choice.disk_gb, 0) / max(disk_gb, 1)
    )
