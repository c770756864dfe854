# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hosts and datastores as vCenter pushes them: a cache that the updates of a property collector are put into."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Iterable

from .attributes import fields
from .binding import DEFINITION, GROUP
from .client import Session
from .event_model import Thing
from .properties import kind_of, moref_of

HOST_PATHS = ("name", "parent", "runtime.connectionState", "runtime.inMaintenanceMode", "customValue")
STORE_PATHS = ("name", "summary.accessible", "summary.capacity", "summary.freeSpace", "summary.maintenanceMode")
PATHS = {"HostSystem": HOST_PATHS, "Datastore": STORE_PATHS, "ComputeResource": ("name",)}
HOST, STORE = "HostSystem", "Datastore"


@dataclass
class Places:
    """C(hosts), C(datastores): by MoRef."""

    session: Session
    _props: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    _names: dict[int, str] = field(default_factory=dict)

    def put(self, update: Any) -> tuple[str, str, bool] | None:
        """Take one ObjectUpdate in; the type and MoRef of a host or datastore, and whether it is there. None for all else."""
        kind, moref = kind_of(update.obj), moref_of(update.obj)
        if update.kind == "leave":
            self._props.pop((kind, moref), None)
            return (kind, moref, False) if kind in (HOST, STORE) else None
        props = self._props.setdefault((kind, moref), {})
        for change in update.changeSet or ():
            if change.val is None:
                props.pop(change.name, None)
            else:
                props[change.name] = change.val
        return (kind, moref, True) if kind in (HOST, STORE) else None

    def thing(self, kind: str, moref: str) -> Thing | None:
        """The host or datastore as it is now; None where nothing is known of it (yet)."""
        p = self._props.get((kind, moref))
        if p is None or "name" not in p:
            return None
        name = str(p["name"])
        if kind == STORE:
            return Thing(
                moref,
                name,
                maintenance=str(p.get("summary.maintenanceMode", "normal")) != "normal",
                capacity=int(p.get("summary.capacity", 0)),
                free=int(p.get("summary.freeSpace", 0)),
                accessible=bool(p.get("summary.accessible", False)),
            )
        values = self._values(p.get("customValue") or ())
        return Thing(
            moref,
            name,
            maintenance=bool(p.get("runtime.inMaintenanceMode", False)),
            connection=str(p.get("runtime.connectionState", "")),
            cluster=self._cluster(p.get("parent")),
            group=values.get(GROUP) or None,
            definition=values.get(DEFINITION) or None,
        )

    def all(self) -> list[tuple[str, Thing]]:
        """Every host and datastore, with its type."""
        found = []
        for kind, moref in list(self._props):
            thing = self.thing(kind, moref) if kind in (HOST, STORE) else None
            if thing is not None:
                found.append((kind, thing))
        return found

    def _cluster(self, parent: Any) -> str | None:
        """A host of its own has a ComputeResource that is no cluster."""
        if parent is None or kind_of(parent) != "ClusterComputeResource":
            return None
        name = self._props.get((kind_of(parent), moref_of(parent)), {}).get("name")
        return str(name) if name else None

    def _values(self, values: Iterable[Any]) -> dict[str, str]:
        """Custom attributes by name. A definition that is not known was made since."""
        given = [v for v in values if getattr(v, "value", None)]
        if any(v.key not in self._names for v in given):
            self._names = {f.key: f.name for f in fields(self.session)}
            for v in given:
                self._names.setdefault(v.key, "")
        return {self._names[v.key]: str(v.value) for v in given}
