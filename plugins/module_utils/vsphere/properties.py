# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reading properties in bulk: one question of the property collector for many objects, paged.

pyVmomi's lazy access (C(vm.config.name)) asks the server once for every attribute of every object. Here the paths that are
wanted are said first, down to the leaf, and the answers come in pages (PropertyCollector.RetrievePropertiesEx and
ContinueRetrievePropertiesEx, vSphere Web Services API reference).
"""

from __future__ import annotations

from typing import Any, Iterable, Iterator, Mapping, NamedTuple, Sequence

from ..errors import BadInput, ServerError
from .client import Session, fault_text

#: Objects in one page of an answer: some 200 KiB of XML for a handful of leaves.
PAGE = 500

#: vSphere's words for power states, and ours.
POWER = {"poweredOn": "on", "poweredOff": "off", "suspended": "suspended"}


class Row(NamedTuple):
    """What was read of one object. A property that is unset, or that may not be read, is not in C(props)."""

    kind: str
    moref: str
    props: dict[str, Any]


def moref_of(ref: Any) -> str:
    """The MoRef's value (vm-42) of a managed object."""
    return str(ref._moId)


def kind_of(ref: Any) -> str:
    """The MoRef's type (VirtualMachine) of a managed object."""
    return str(ref._wsdlName)


def no_such_property(name: str, paths: Mapping[str, Sequence[str]], step: str, said: str | None) -> BadInput:
    """The error for a property path that the API does not have."""
    return BadInput(f"There is no property {name} of {', '.join(paths)} in this vCenter's API.", step=step, said=said)


def _property_specs(session: Session, paths: Mapping[str, Sequence[str]]) -> list[Any]:
    collector = session.vmodl.query.PropertyCollector
    return [collector.PropertySpec(type=getattr(session.vim, kind), pathSet=list(leaves), all=False) for kind, leaves in paths.items()]


def _rows(objects: Iterable[Any]) -> Iterator[Row]:
    for content in objects or ():
        yield Row(kind_of(content.obj), moref_of(content.obj), {p.name: p.val for p in content.propSet or () if p.val is not None})


def _retrieve(session: Session, object_specs: list[Any], paths: Mapping[str, Sequence[str]], page: int, step: str) -> Iterator[Row]:
    query = session.vmodl.query.PropertyCollector
    collector = session.content.propertyCollector
    spec = query.FilterSpec(objectSet=object_specs, propSet=_property_specs(session, paths))
    answer = session.call(collector.RetrievePropertiesEx, [spec], query.RetrieveOptions(maxObjects=page), step=step, again=True)
    while answer is not None:
        yield from _rows(answer.objects)
        if not answer.token:
            return
        answer = session.call(collector.ContinueRetrievePropertiesEx, answer.token, step=step)


def _read(session: Session, object_specs: list[Any], paths: Mapping[str, Sequence[str]], page: int, step: str) -> list[Row]:
    generation = session.generation
    try:
        return list(_retrieve(session, object_specs, paths, page, step))
    except ServerError as e:
        fault = e.__cause__
        if isinstance(fault, session.vmodl.query.InvalidProperty):
            raise no_such_property(str(getattr(fault, "name", "")), paths, step, fault_text(fault)) from e
        # the token of a page belongs to the session that it was given to
        if session.generation == generation or not isinstance(fault, session.vmodl.fault.InvalidArgument):
            raise
    return list(_retrieve(session, object_specs, paths, page, step))


def of_objects(
    session: Session,
    refs: Iterable[Any],
    paths: Mapping[str, Sequence[str]],
    *,
    ancestors: bool = False,
    page: int = PAGE,
    step: str = "read properties",
) -> list[Row]:
    """The properties C(paths) (leaves by type) of the managed objects C(refs), in one question.

    An object that is gone by now is left out of the answer.

    :param ancestors: also of all that is above them, up to the root folder, as far as C(paths) names its type.
    """
    query = session.vmodl.query.PropertyCollector
    climb = _climb(session) if ancestors else []
    wanted = list({moref_of(r): r for r in refs}.values())
    while wanted:
        try:
            return _read(session, [query.ObjectSpec(obj=r, skip=False, selectSet=climb) for r in wanted], paths, page, step)
        except ServerError as e:
            fault = e.__cause__
            if not isinstance(fault, session.vmodl.fault.ManagedObjectNotFound) or fault.obj is None:
                raise
            left = [r for r in wanted if moref_of(r) != moref_of(fault.obj)]
            if len(left) == len(wanted):
                raise
            wanted = left
    return []


def _climb(session: Session) -> list[Any]:
    """The selection that leads from an entity to all its ancestors."""
    query = session.vmodl.query.PropertyCollector
    up = query.SelectionSpec(name="up")
    vapp = [query.SelectionSpec(name="vappFolder"), query.SelectionSpec(name="vappUp")]
    return [
        query.TraversalSpec(name="up", type=session.vim.ManagedEntity, path="parent", skip=False, selectSet=[up]),
        # a VM inside a vApp has no parent folder; the outermost vApp has one
        query.TraversalSpec(name="vappFolder", type=session.vim.VirtualApp, path="parentFolder", skip=False, selectSet=[up]),
        query.TraversalSpec(name="vappUp", type=session.vim.VirtualApp, path="parentVApp", skip=False, selectSet=vapp),
    ]


def of_view(
    session: Session, paths: Mapping[str, Sequence[str]], *, root: Any = None, page: int = PAGE, step: str = "read the inventory"
) -> list[Row]:
    """The properties C(paths) (leaves by type) of every object of those types below C(root) (default: the whole inventory)."""
    query = session.vmodl.query.PropertyCollector
    types = [getattr(session.vim, kind) for kind in paths]
    for last in (False, True):
        generation = session.generation
        view = session.call(session.content.viewManager.CreateContainerView, root or session.content.rootFolder, types, True, step=step)
        along = query.TraversalSpec(name="view", path="view", skip=False, type=session.vim.view.ContainerView)
        try:
            return _read(session, [query.ObjectSpec(obj=view, skip=True, selectSet=[along])], paths, page, step)
        except ServerError as e:
            # a view dies with the session that made it
            if last or session.generation == generation or not isinstance(e.__cause__, session.vmodl.fault.ManagedObjectNotFound):
                raise
        finally:
            try:
                session.call(view.Destroy)
            except ServerError:
                pass  # it dies with the session
    raise AssertionError("unreachable")
