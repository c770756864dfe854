# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One guest, from looking into it to its disks being another machine's: what vm_guest_convert does with disks that are at this machine."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, Mapping, Sequence

from ..errors import FerryError
from . import convert, decide, finish, inspection, words
from .fish import Guestfish
from .layers import COMMITTING, Layers
from .model import Change, Disk, Inspection, Target
from .tools import need

#: Steps of a conversion, for its progress: looking into the guest, virt-v2v, binding, writing down.
STEPS = ("inspect", "convert", "bind", "write")


@dataclass
class Outcome:
    """C(converted): whether the disks were changed. C(undone): an earlier run was killed, and what it had begun was thrown away."""

    found: Inspection | None
    converted: bool
    action: str
    reasons: list[str]
    changes: list[Change]
    target: Target | None
    warnings: list[str] = field(default_factory=list)
    undone: bool = False
    names: Mapping[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return {
            "os": self.found.system() if self.found else None,
            "converted": self.converted,
            "action": self.action,
            "reasons": self.reasons,
            "changes": [c.as_dict() for c in self.changes],
            "target": self.target.as_dict() if self.target else None,
            "remarks": self.warnings,
            "undone": self.undone,
        }


@dataclass
class Hooks:
    """What the owner of the disks has to do. C(committing): before the first byte of a disk is changed; C(committed): when all are.

    C(check): raises where the task is to stop. C(tell): a step of STEPS and what is done in it.
    """

    check: Callable[[], None] = lambda: None
    tell: Callable[[str, str], None] = lambda step, what: None
    committing: Callable[[], None] = lambda: None
    committed: Callable[[Target], None] = lambda target: None
    #: Names this conversion in the journal of its layers.
    token: str = ""


def look(disks: Sequence[Disk], wishes: decide.Wishes, hooks: Hooks) -> Inspection:
    """Look into the guest; nothing is changed.

    :raises GuestError: it cannot be converted, and why.
    """
    hooks.tell("inspect", "look into the guest")
    with Guestfish(disks, check=hooks.check) as fish:
        found = inspection.inspect(fish, disks, root=wishes.root if wishes.root.startswith("/") else "")
    decide.refuse(found, wishes)
    return found


def planned(disks: Sequence[Disk], wishes: decide.Wishes, hooks: Hooks) -> Outcome:
    """What run() would do. Nothing is changed."""
    need("guestfish", "setpriv")
    found = look(disks, wishes, hooks)
    choice = decide.decide(found, wishes)
    virtio = found.virtio is True or (choice.action == decide.CONVERT and not found.windows)
    if found.windows and choice.action == decide.CONVERT:
        virtio = bool(convert.virtio_win(wishes.virtio_win))
    target = decide.target(found, wishes, virtio=virtio, disks=len(disks))
    warnings = [*found.remarks, *choice.remarks, *_about_target(found, target)]
    return Outcome(found, False, choice.action, choice.reasons, choice.changes, target, warnings, names=choice.names)


def run(disks: Sequence[Disk], wishes: decide.Wishes, layers: Layers, hooks: Hooks, *, timeout: float = 3600.0) -> Outcome:
    """Convert the guest on C(disks), all of them or none.

    :param layers: entered; what an earlier run left in them is thrown away here. One that was C(committing) is for finish_commit().
    :param timeout: seconds for virt-v2v.
    :raises GuestError: it cannot be converted. The disks are as they were, unless the error says otherwise.
    """
    need()
    undone = bool(layers.phase)
    layers.clear()
    found = look(disks, wishes, hooks)
    choice = decide.decide(found, wishes)
    warnings = [*found.remarks, *choice.remarks]
    if choice.action == decide.NOTHING:
        target = decide.target(found, wishes, virtio=True, disks=len(disks))
        return Outcome(found, False, choice.action, choice.reasons, [], target, warnings, undone, choice.names)
    try:
        over = layers.make(disks)
        changes: list[Change] = []
        virtio = True
        if choice.action == decide.CONVERT:
            said = _convert(over, found, wishes, hooks, timeout, layers.log)
            virtio = bool(said.virtio)
            warnings += said.warnings
            changes += [c for c in choice.changes if c.what.startswith(("virtio", "removed"))]
            if not virtio:
                changes = [c for c in changes if not c.what.startswith("virtio")]
                warnings.append(
                    "it has no virtio drivers: "
                    + ("virtio-win has none for it" if wishes.virtio_win else "virtio-win was not given or is not there")
                    if found.windows
                    else "it has no virtio drivers, since virt-v2v found none in its kernels"
                )
        if not found.windows:
            hooks.tell("bind", "bind the guest to its cards and file systems")
            with Guestfish(over, writable=True, check=hooks.check) as fish:
                changes += finish.bind(fish, found, wishes, converted=choice.action == decide.CONVERT)
        target = decide.target(found, wishes, virtio=virtio, disks=len(disks))
    except BaseException:
        layers.clear()  # nothing has reached the disks
        raise
    result = Outcome(
        found, True, choice.action, choice.reasons, changes, target, [*warnings, *_about_target(found, target)], undone, choice.names
    )
    layers.note(
        COMMITTING,
        token=hooks.token,
        target=target.as_text(),
        disks=len(disks),
        outcome={k: v for k, v in result.as_dict().items() if k != "os"},
    )
    write_down(disks, layers, hooks, target)
    return result


def _convert(over: Sequence[Disk], found: Inspection, wishes: decide.Wishes, hooks: Hooks, timeout: float, log: str) -> words.Said:
    hooks.tell("convert", "virt-v2v")
    wishes.virtio_win = convert.virtio_win(wishes.virtio_win) if found.windows else ""
    uefi = (wishes.firmware or found.firmware) in ("efi", "uefi")
    return convert.run(
        over,
        wishes,
        uefi=uefi,
        root=found.root,
        check=hooks.check,
        watch=lambda step: hooks.tell("convert", step),
        timeout=timeout,
        log=log,
    )


def write_down(disks: Sequence[Disk], layers: Layers, hooks: Hooks, target: Target) -> None:
    """Let the layers go down into the disks; also what a killed run had begun to write.

    :raises FerryError: with what is left and what to do: the disks are neither the one nor the other until it has been done again.
    """
    hooks.committing()
    try:
        layers.commit(disks, watch=lambda number: hooks.tell("write", f"write disk {number + 1} of {len(disks)}"))
    except FerryError as e:
        raise e.add(
            left=f"disks that are half written, and the layers with the rest in {layers.folder}",
            next_command="the same command again: it writes the rest",
        ) from None
    hooks.committed(target)
    layers.clear()


def _about_target(found: Inspection, target: Target) -> list[str]:
    if target.disk_bus == "virtio":
        return []
    return [f"it gets {target.disk_bus.upper()} disks and {target.nic_model} cards, which are slower than virtio's"]
