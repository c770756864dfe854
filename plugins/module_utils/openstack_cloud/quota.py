# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Quotas: what a project may have and uses, and whether a whole wave fits, before its first byte.

Sources: Nova's C(/limits), Cinder's C(/os-quota-sets/PROJECT?usage=true) (per volume type too), Neutron's
C(/quotas/PROJECT/details), Glance's C(/v2/info/usage) (where it keeps limits). RAM is in MiB, sizes are in GiB, images in MiB.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Mapping

from .client import get_optional
from .finding import Finding

#: Name here, limit and use in Nova's absolute limits.
_COMPUTE = (
    ("instances", "maxTotalInstances", "totalInstancesUsed"),
    ("cores", "maxTotalCores", "totalCoresUsed"),
    ("ram", "maxTotalRAMSize", "totalRAMUsed"),
    ("server_groups", "maxServerGroups", "totalServerGroupsUsed"),
)
#: Limits of Nova that are no sum: (members of one group, entries of metadata of one server).
_SINGLE = (("server_group_members", "maxServerGroupMembers"), ("server_metadata", "maxServerMeta"))
_UNITS = {"ram": " MiB", "gigabytes": " GiB", "image_size_total": " MiB", "image_stage_total": " MiB"}

Limits = Mapping[str, tuple[int, int]]


def read(conn: Any, *, images: bool = False) -> dict[str, tuple[int, int]]:
    """{what: (limit, used)}, -1 for no limit. A service that does not tell its quotas to this user is left out: it will refuse by itself.

    :param images: whether Glance's are needed.
    """
    found: dict[str, tuple[int, int]] = {}
    limits = _optional(conn, "compute", "/limits").get("limits", {}).get("absolute", {})
    for name, limit, used in _COMPUTE:
        if limit in limits:
            found[name] = (int(limits[limit]), int(limits.get(used, 0)))
    for name, limit in _SINGLE:
        if limit in limits:
            found[name] = (int(limits[limit]), 0)
    project = conn.current_project_id
    for name, row in _optional(conn, "block_storage", f"/os-quota-sets/{project}?usage=true").get("quota_set", {}).items():
        if isinstance(row, dict):
            found[name] = (int(row.get("limit", -1)), int(row.get("in_use", 0)) + int(row.get("reserved", 0)))
    row = _optional(conn, "network", f"/quotas/{project}/details").get("quota", {}).get("port")
    if isinstance(row, dict):
        found["port"] = (int(row.get("limit", -1)), int(row.get("used", 0)) + int(row.get("reserved", 0)))
    if images:
        for name, row in _optional(conn, "image", "/info/usage").get("usage", {}).items():
            if isinstance(row, dict):
                found[str(name)] = (int(row.get("limit", -1)), int(row.get("usage", 0)))
    return found


def _optional(conn: Any, service: str, path: str) -> dict[str, Any]:
    return get_optional(conn, service, path, step="read the quotas")


@dataclass
class Needs:
    """What a wave takes of each quota, summed up."""

    amounts: dict[str, int] = field(default_factory=dict)

    def add(self, what: str, amount: int) -> None:
        self.amounts[what] = self.amounts.get(what, 0) + amount

    def volume(self, size_gib: int, volume_type: str | None, *, count: int = 1) -> None:
        """C(count) volumes (0: one that grows) of C(size_gib) in all; Cinder counts them in all and by type."""
        for suffix in ("", f"_{volume_type}") if volume_type else ("",):
            if count:
                self.add(f"volumes{suffix}", count)
            if size_gib:
                self.add(f"gigabytes{suffix}", size_gib)

    def snapshot(self, size_gib: int, volume_type: str | None) -> None:
        """A snapshot of a volume. Its size counts as that of a volume does (Cinder's C(no_snapshot_gb_quota) is off by default)."""
        for suffix in ("", f"_{volume_type}") if volume_type else ("",):
            self.add(f"snapshots{suffix}", 1)
            self.add(f"gigabytes{suffix}", size_gib)


def check(needs: Needs, limits: Limits) -> tuple[list[dict[str, Any]], list[str]]:
    """(what is needed of each quota: what, needed, used, limit; what does not fit, in words)."""
    rows = []
    errors: list[str] = []
    for what, amount in sorted(needs.amounts.items()):
        limit, used = limits.get(what, (-1, 0))
        rows.append({"what": what, "needed": amount, "used": used, "limit": limit})
        if limit >= 0 and amount > 0 and used + amount > limit:
            unit = next((u for k, u in _UNITS.items() if what.startswith(k)), "")
            text = f"the quota of {what} is {limit}{unit}, {used} are used, the wave needs {amount} more"
            errors.append(Finding("ferry.quota.exceeded", text, device=what))
    return rows, errors
