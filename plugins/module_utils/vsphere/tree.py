# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where an object stands in vCenter's inventory: paths, datacenters and clusters, from properties that were read in bulk."""

from __future__ import annotations

import re
from typing import Any, Iterable

from .properties import Row, moref_of

#: Properties that Tree needs, of every type that can be above a VM, a host, a datastore or a network.
ANCESTORS = {
    "Folder": ("name", "parent"),
    "Datacenter": ("name", "parent"),
    "ComputeResource": ("name", "parent"),
    "VirtualApp": ("name", "parent", "parentFolder", "parentVApp"),
}

#: A parent chain longer than this is a loop.
_MAX_DEPTH = 64

_ESCAPED = {"%2f": "/", "%2F": "/", "%5c": "\\", "%5C": "\\", "%25": "%"}


def shown(name: str) -> str:
    """A name as people see it: vSphere escapes slash, backslash and percent in names (ManagedEntity.name, API reference)."""
    return re.sub("%(?:2[fF]|5[cC]|25)", lambda m: _ESCAPED[m.group()], name)


def escaped(name: str) -> str:
    """A name as the API takes it in calls that make something: the opposite of shown()."""
    return name.replace("%", "%25").replace("/", "%2f").replace("\\", "%5c")


class Tree:
    """The ancestors of what is in C(rows)."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows = list(rows)
        self._rows = {row.moref: row for row in self.rows}
        self._paths: dict[str, str] = {}

    def row(self, moref: str | None) -> Row | None:
        return self._rows.get(moref or "")

    def name(self, ref: Any) -> str | None:
        """The name of a managed object, None where it was not read."""
        row = self.row(moref_of(ref)) if ref is not None else None
        name = row.props.get("name") if row else None
        return None if name is None else shown(name)

    def _parent(self, row: Row) -> Row | None:
        # a vApp's parent is a resource pool; in the folders it stands in parentFolder, or within another vApp
        for prop in ("parentFolder", "parentVApp", "parent") if row.kind == "VirtualApp" else ("parent", "parentVApp"):
            above = row.props.get(prop)
            if above is not None:
                return self.row(moref_of(above))
        return None

    def chain(self, moref: str) -> list[Row]:
        """The object and all that is above it, without the root folder."""
        found: list[Row] = []
        row = self.row(moref)
        while row is not None and len(found) < _MAX_DEPTH:
            found.append(row)
            row = self._parent(row)
        # the root folder is not part of any inventory path
        if found and found[-1].kind == "Folder" and "parent" not in found[-1].props:
            found.pop()
        return found

    def path(self, moref: str) -> str:
        """The inventory path, /DC0/vm/folder/name, names escaped as the API has them; it begins with .../ where a parent may not be read."""
        known = self._paths.get(moref)
        if known is not None:
            return known
        rows = self.chain(moref)
        if not rows:
            return ""
        names = [str(r.props.get("name", r.moref)) for r in reversed(rows)]
        whole = any(r.kind == "Datacenter" for r in rows)
        path = ("/" if whole else ".../") + "/".join(names)
        self._paths[moref] = path
        return path

    def folder(self, moref: str) -> str:
        """The inventory path without the object's own name."""
        return self.path(moref).rpartition("/")[0]

    def datacenter(self, moref: str) -> str | None:
        """The path of the datacenter as datastore URLs want it in dcPath: no leading slash, folders above it included."""
        rows = self.chain(moref)
        for i, row in enumerate(rows):
            if row.kind == "Datacenter":
                return "/".join(str(r.props["name"]) for r in reversed(rows[i:]))
        return None

    def cluster(self, host: str) -> str | None:
        """The name of the cluster that the host C(host) (MoRef) is in; None for a standalone host."""
        for row in self.chain(host)[1:]:
            if row.kind == "ClusterComputeResource":
                return shown(str(row.props.get("name", row.moref)))
            if row.kind == "ComputeResource":
                return None
        return None
