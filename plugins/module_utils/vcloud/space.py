# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether VMs fit on a datastore. Sizes in MiB. Pure, but for the readers at the end."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Sequence

from ..errors import ServerError
from . import query
from .client import Client
from .document import whole
from .entities import Datastore, VmFacts
from .find import read_vm

#: Part of a datastore that a move leaves free, in percent, unless told otherwise.
RESERVE_PERCENT = 5.0
#: VMs read at once.
READERS = 6


@dataclass(frozen=True)
class Room:
    """Whether C(need_mb) more fit on a datastore.

    :param free_mb: what is free by the used figure, moves in flight taken off.
    :param reserve_mb: what has to stay free.
    :param promised_mb: what thin disks there may still grow by: the provisioned figure less the used one.
    """

    need_mb: int
    free_mb: int
    reserve_mb: int
    promised_mb: int

    @property
    def fits(self) -> bool:
        return self.need_mb <= self.free_mb - self.reserve_mb

    @property
    def overcommitted(self) -> bool:
        """Whether it would be too small were every thin disk full."""
        return self.need_mb + self.promised_mb > self.free_mb

    def as_dict(self) -> dict[str, Any]:
        """What modules return of it."""
        return {
            "need_mb": self.need_mb,
            "free_mb": self.free_mb,
            "reserve_mb": self.reserve_mb,
            "fits": self.fits,
            "overcommitted": self.overcommitted,
        }


def room(
    target: Datastore,
    need_mb: int,
    *,
    reserve_percent: float = RESERVE_PERCENT,
    in_flight_mb: int = 0,
) -> Room:
    """Whether C(need_mb) fit on C(target).

    :param reserve_percent: of its size, that has to stay free.
    :param in_flight_mb: what moves that are under way will still write there.
    """
    return Room(
        need_mb=need_mb,
        free_mb=target.free_mb - in_flight_mb,
        reserve_mb=int(target.total_mb * reserve_percent / 100),
        promised_mb=max(0, target.provisioned_mb - target.used_mb),
    )


def to_move(vm: VmFacts, target: tuple[str, str]) -> int:
    """The most that a move of C(vm) to the datastore C(target) (vCenter, MoRef) writes there: its own disks that are not there yet.

    Of a linked clone that is an upper bound for its own part; a base that is not on the target comes on top, as a shadow VM.
    """
    return sum(d.size_mb for d in vm.disks if not d.independent and (d.datastore or vm.home) != target)


@dataclass(frozen=True)
class Shadow:
    """A shadow VM: the copy of a template's VM on another datastore, on which linked clones there hang."""

    href: str
    name: str
    primary_vm: str
    primary_template: str
    datastore: str
    vcenter: str


def shadow_vms(client: Client) -> list[Shadow]:
    """All shadow VMs. The server makes and removes them; they cannot be relocated by themselves."""
    found = query.records(client, "adminShadowVM", step="list the shadow VMs")
    return [
        Shadow(
            href=r.get("href", ""),
            name=r.get("name", ""),
            primary_vm=r.get("primaryVM", ""),
            primary_template=r.get("primaryVAppTemplate", ""),
            datastore=r.get("datastoreName", ""),
            vcenter=r.get("vcName", ""),
        )
        for r in found
        if r.get("isDeleted") != "true"
    ]


@dataclass(frozen=True)
class NamedDisk:
    """An independent disk: it lives by itself, attached to a VM or to none, and is not moved with one."""

    href: str
    name: str
    vdc: str
    size_mb: int
    datastore: str
    attached: bool


def independent_disks(client: Client, *, datastore: str | None = None) -> list[NamedDisk]:
    """All independent disks (API 5.1 on; none before), or those on the datastores of that name."""
    era = client.era
    if not era.relational:
        return []
    where = query.equal("datastoreName", datastore, era) if datastore else None
    found = query.records(client, "adminDisk", step="list the independent disks", where=where)
    return [
        NamedDisk(
            href=r.get("href", ""),
            name=r.get("name", ""),
            vdc=r.get("vdc", ""),
            # bytes in the older versions
            size_mb=whole(r.get("sizeMb")) or -(-(whole(r.get("sizeB")) or 0) // (1 << 20)),
            datastore=r.get("datastoreName", ""),
            attached=r.get("isAttached") == "true",
        )
        for r in found
        if not datastore or r.get("datastoreName") == datastore
    ]


def read_vms(client: Client, hrefs: Sequence[str]) -> dict[str, VmFacts | ServerError]:
    """The VMs at C(hrefs), several at a time; for one that cannot be read, the error."""

    def one(href: str) -> VmFacts | ServerError:
        try:
            return read_vm(client, href)
        except ServerError as e:
            if e.code in ("not_found", "forbidden", "refused"):
                return e
            raise

    with ThreadPoolExecutor(READERS, thread_name_prefix="vm") as pool:
        return dict(zip(hrefs, pool.map(one, hrefs), strict=True))
