# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Finding VMs by what people have at hand: a name, an inventory path, a uuid or a MoRef."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from typing import Any, Iterable, Sequence

from ..errors import BadInput, bounded
from .client import Session
from .properties import of_objects, of_view
from .tree import ANCESTORS, Tree, shown

UUID = re.compile(r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$", re.IGNORECASE)
#: vCenter's MoRefs of VMs are vm-42, those of an ESXi host plain numbers.
MOREF = re.compile(r"^(vm-)?[1-9][0-9]{0,18}$")

#: Matches named in one error.
_MOST_NAMED = 10


@dataclass(frozen=True)
class VmRef:
    """A VM that was found. C(ref): the managed object."""

    moref: str
    name: str
    path: str
    instance_uuid: str | None
    template: bool
    ref: Any = field(repr=False, compare=False)


@dataclass
class Names:
    """All names there are, MoRefs by name; read at most once for a whole list of VMs."""

    by_name: dict[str, list[str]]
    morefs: frozenset[str] = frozenset()

    def matches(self, wanted: str) -> list[str]:
        return self.by_name.get(wanted, [])

    def close(self, wanted: str) -> list[str]:
        """Names that may have been meant: other letter case first, then similar ones."""
        folded = wanted.casefold()
        same = [n for n in self.by_name if n.casefold() == folded]
        part = [n for n in self.by_name if len(folded) > 2 and folded in n.casefold()]
        similar = difflib.get_close_matches(wanted, list(self.by_name), n=5, cutoff=0.6)
        return list(dict.fromkeys(same + similar + part))[:5]


def _read_names(session: Session) -> Names:
    by_name: dict[str, list[str]] = {}
    for row in of_view(session, {"VirtualMachine": ("name",)}, step="find the VM"):
        by_name.setdefault(shown(str(row.props.get("name", ""))), []).append(row.moref)
    return Names(by_name, frozenset(m for found in by_name.values() for m in found))


def _candidates(session: Session, wanted: str, names: list[Names]) -> list[str]:
    """MoRefs of the VMs that C(wanted) may mean. C(names) is filled by the first call that needs it."""

    def all_names() -> Names:
        if not names:
            names.append(_read_names(session))
        return names[0]

    index = session.content.searchIndex
    found: list[str] = []
    if UUID.match(wanted):
        for instance in (True, False):
            refs = session.call(index.FindAllByUuid, None, wanted.lower(), True, instance, step="find the VM", again=True)
            found += [str(r._moId) for r in refs or ()]
        if found:
            return list(dict.fromkeys(found))
    if "/" in wanted:
        ref = session.call(index.FindByInventoryPath, wanted.strip("/"), step="find the VM", again=True)
        if ref is not None and ref._wsdlName == "VirtualMachine":
            return [str(ref._moId)]
    if MOREF.match(wanted):
        # The same word may be another VM's name: both are found, so that the wrong one is never taken. That list has the MoRefs, too.
        found = [wanted] if wanted in all_names().morefs else []
    found += all_names().matches(wanted)
    if not found and "/" in wanted.strip("/"):
        found = _below_folders(session, wanted, all_names())
    return list(dict.fromkeys(found))


def _below_folders(session: Session, wanted: str, names: Names) -> list[str]:
    """VMs whose path ends in C(wanted) (folder/name; with a slash in front the whole path), slashes in names not escaped."""
    last = wanted.rstrip("/").rsplit("/", 1)[-1]
    morefs = [m for name, found in names.by_name.items() if name.rsplit("/", 1)[-1] == last for m in found]
    tail = "/" + wanted.strip("/")
    whole = wanted.startswith("/")
    return [vm.moref for vm in describe(session, morefs) if (shown(vm.path) == tail if whole else shown(vm.path).endswith(tail))]


def describe(session: Session, morefs: Iterable[str]) -> list[VmRef]:
    """Name, path and uuid of the VMs C(morefs), in their order, in one question."""
    order = list(morefs)
    refs = {m: session.managed("VirtualMachine", m) for m in order}
    paths = {**ANCESTORS, "VirtualMachine": ("name", "parent", "parentVApp", "config.instanceUuid", "config.template")}
    tree = Tree(of_objects(session, refs.values(), paths, ancestors=True, step="find the VM"))
    vapps = _vapps_above(session, tree, order)
    if vapps:
        tree = Tree([*tree.rows, *vapps])
    found = []
    for moref in order:
        row = tree.row(moref)
        if row is not None:
            found.append(
                VmRef(
                    moref=moref,
                    name=shown(str(row.props.get("name", moref))),
                    path=tree.path(moref),
                    instance_uuid=row.props.get("config.instanceUuid"),
                    template=bool(row.props.get("config.template")),
                    ref=refs[moref],
                )
            )
    return found


def _vapps_above(session: Session, tree: Tree, morefs: Iterable[str]) -> list[Any]:
    """The rows of the vApps that hold VMs which have no folder, and of what is above those; asks only where there are any."""
    rows = [tree.row(m) for m in morefs]
    vapps = [r.props["parentVApp"] for r in rows if r is not None and "parentVApp" in r.props and "parent" not in r.props]
    return of_objects(session, vapps, ANCESTORS, ancestors=True, step="find the VM") if vapps else []


def _several(wanted: str, vms: Sequence[VmRef]) -> str:
    named = "; ".join(f"{vm.path} ({vm.moref}, {vm.instance_uuid})" for vm in vms[:_MOST_NAMED])
    more = f" and {len(vms) - _MOST_NAMED} more" if len(vms) > _MOST_NAMED else ""
    return f"{len(vms)} VMs answer to {bounded(wanted, 120)}: {named}{more}"


def find_vms(session: Session, wanted: Sequence[str]) -> list[VmRef]:
    """The VMs that C(wanted) names, in its order; what is named twice is there twice.

    A name, an inventory path (/DC0/vm/folder/name, or only its end), an instance or BIOS uuid, or a MoRef.

    :raises BadInput: lists every one that is unknown (with close names) or ambiguous (with the paths), in C(details) as well.
    """
    names: list[Names] = []
    per_wanted = {w: _candidates(session, w, names) for w in dict.fromkeys(str(w).strip() for w in wanted)}
    known = {vm.moref: vm for vm in describe(session, dict.fromkeys(m for found in per_wanted.values() for m in found))}
    problems: list[str] = []
    unknown: list[str] = []
    ambiguous: dict[str, list[str]] = {}
    result: dict[str, VmRef] = {}
    for text, morefs in per_wanted.items():
        vms = [known[m] for m in morefs if m in known]
        if len(vms) == 1:
            result[text] = vms[0]
        elif vms:
            problems.append(_several(text, vms))
            ambiguous[text] = [f"{vm.path} ({vm.moref})" for vm in vms[:_MOST_NAMED]]
        else:
            if not names:
                names.append(_read_names(session))
            close = names[0].close(text)
            problems.append(
                f"No VM answers to {bounded(text, 120)}" + (f" (close: {', '.join(bounded(c, 80) for c in close)})" if close else "")
            )
            unknown.append(text)
    if problems:
        raise BadInput(
            ". ".join(problems) + ".",
            vm=str(wanted[0]) if len(wanted) == 1 else None,
            step="find the VM",
            next_command="give the MoRef, the instance uuid or the inventory path" if ambiguous else None,
            unknown=unknown,
            ambiguous=ambiguous,
        )
    return [result[str(w).strip()] for w in wanted]


def find_vm(session: Session, wanted: str) -> VmRef:
    """The one VM that C(wanted) names; see find_vms."""
    if not str(wanted).strip():
        raise BadInput("vm is empty.", step="find the VM")
    return find_vms(session, [wanted])[0]
