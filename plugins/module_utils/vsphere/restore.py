# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The source of a migration as it was: by what fence.py wrote down at it. Every step can be repeated, in this order:

our snapshots, change tracking, network cards, power, the note, and at last the attributes: while C(ferry.before) stands there, a
rollback that was cut off goes on. A snapshot or tracking that does not give way holds up nothing: the VM runs first, the error comes
at the end.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Callable, Mapping, Sequence

from ..errors import BadInput, FerryError
from . import cbt, fence, snapshots, source_state
from .client import Session
from .find import VmRef
from .note import note_of
from .snapshot_tag import KEPT
from .snapshot_tree import Snapshot, every, is_left_behind, server_time

#: Seconds that a snapshot of ours gets to go before the VM is powered on without waiting any longer for it.
SNAPSHOT_PATIENCE = 300.0
ROLLED_BACK, COMMITTED = "rolled_back", "committed"


def restore(
    session: Session,
    vm: VmRef,
    *,
    power: str = "recorded",
    take_over: bool = False,
    committed: bool = False,
    check: bool = False,
    dead: Sequence[str] = (),
) -> dict[str, Any]:
    """Bring C(vm) back to what it was before the migration touched it.

    :param power: recorded, on, unchanged.
    :param take_over: remove snapshots of ours that a run on another machine may still use.
    :param committed: also where the migration was committed.
    :param dead: names of machines whose runs are known to be over.
    :returns: changed, before, after (power, annotation, nics, tracked, snapshots, attributes), steps (sentences), remarks.
    :raises BadInput: code committed; code record (what was written down cannot be read).
    :raises FerryError: what could not be brought back, after everything else was; partial has the steps that were taken.
    """
    work = _Restore(session, vm, power, take_over, check, dead)
    if work.state.attributes.get(fence.STATE) == COMMITTED and not committed:
        raise BadInput(
            "The migration of this VM was committed: it counts as moved for good, and parts of it may have been deleted.",
            code="committed",
            vm=vm.name,
            step="roll back",
            next_command="if it is to come back all the same: rollback_committed=true",
        )
    return work.run()


class _Restore:
    def __init__(self, session: Session, vm: VmRef, power: str, take_over: bool, check: bool, dead: Sequence[str]) -> None:
        self.session = session
        self.vm = vm
        self.power = power
        self.take_over = take_over
        self.check = check
        self.dead = dead
        self.state = source_state.read_state(session, vm)
        self.found = fence.read(session, vm)
        self.record = fence.parse(self.state.attributes.get(fence.BEFORE), vm.instance_uuid or vm.moref)
        self.steps: list[str] = []
        self.remarks: list[str] = []
        self.errors: list[FerryError] = []

    def run(self) -> dict[str, Any]:
        before = self._view()
        mine, foreign = self._snapshots()
        for snapshot in foreign:
            self.remarks.append(
                f"the snapshot {snapshot.name} ({snapshot.moref}) was taken by a run on another machine,"
                f" {snapshot.tag.host if snapshot.tag else '?'}, that may still use it: it stays; with take_over it is removed"
            )
        for snapshot in mine:
            self._step(f"snapshot {snapshot.name} removed", partial(self._remove, snapshot))
        self._tracking()
        if self.record is not None:
            self._cards(self.record)
        self._power()
        if note_of(self.state.annotation) is not None:
            self._step("note removed", lambda: self._apply(note=""), held=False)
        self._attributes()
        after = before if self.check else self._view()
        result = {"changed": bool(self.steps), "before": before, "after": after, "steps": self.steps, "remarks": self.remarks}
        if self.errors:
            first = self.errors[0]
            first.partial = result
            first.add(
                vm=self.vm.name,
                left=f"{len(self.errors)} step(s) of the rollback, the attribute {fence.BEFORE} with the old state",
                next_command="run the rollback again",
            )
            raise first
        return result

    def _view(self) -> dict[str, Any]:
        state, found = source_state.read_state(self.session, self.vm), fence.read(self.session, self.vm)
        return {
            "power": state.power,
            "annotation": state.annotation,
            "nics": [c.as_dict() for c in found.cards],
            "tracked": found.tracked,
            "snapshots": [s.name for s in every(self.session, self.vm) if s.tag is not None and s.tag.purpose != KEPT],
            "attributes": {name: state.attributes.get(name, "") for name in (fence.STATE, fence.BEFORE)},
        }

    def _step(self, said: str, work: Callable[[], Any], *, held: bool = True) -> None:
        """Take a step, or in check mode name it.

        :param held: whether what comes after it is done even where it fails.
        """
        if not self.check:
            try:
                work()
            except FerryError as e:
                e.add(vm=self.vm.name)
                if not held:
                    e.partial = {"changed": bool(self.steps), "steps": self.steps, "remarks": self.remarks}
                    raise
                self.errors.append(e)
                return
        self.steps.append(said)

    def _apply(self, **wanted: Any) -> None:
        source_state.apply(self.session, self.vm, source_state.Wanted(**wanted))

    def _snapshots(self) -> tuple[list[Snapshot], list[Snapshot]]:
        """(those to be removed, those of a run elsewhere that may be alive)."""
        mine = snapshots.ours(self.session, self.vm)
        if not mine:
            return [], []
        now = server_time(self.session)
        gone = [s for s in mine if self.take_over or is_left_behind(s, now) or s.tag is not None and s.tag.host in self.dead]
        return gone, [s for s in mine if s not in gone]

    def _remove(self, snapshot: Snapshot) -> None:
        snapshots.remove(self.session, snapshot, timeout=SNAPSHOT_PATIENCE)

    def _tracking(self) -> None:
        record = self.record
        if record is None or fence.same_tracking(self.found, record):
            return

        def back() -> None:
            if not record.tracked and self.found.tracked and self.found.power == "on":
                # on a running VM it takes effect by a snapshot
                cbt.apply(self.session, self.vm, enable=False)
            fence.set_tracking(self.session, self.vm, record)

        self._step(f"change tracking {'on' if record.tracked else 'off'}, as it was", back)

    def _cards(self, record: fence.Record) -> None:
        todo = fence.differing(self.found, record.cards)
        for key in todo:
            label = next(c.label for c in self.found.cards if c.key == key)
            connected = record.cards[key][0]
            self._step(f"{label} {'connected' if connected else 'as it was'}", partial(self._card, record, key), held=False)
        there = {c.key for c in self.found.cards}
        for key in sorted(set(record.cards) - there):
            self.remarks.append(f"the network card {key} is gone, somebody has removed it")

    def _card(self, record: fence.Record, key: int) -> None:
        fence.set_cards(self.session, self.vm, {key: record.cards[key]}, step="connect the network cards")

    def _power(self) -> None:
        wanted = self.power if self.power != "recorded" else self.record.power if self.record is not None else "unchanged"
        if wanted == "suspended":
            self.remarks.append("it was suspended, and its memory is gone: it stays off")
        if wanted == "on" and self.found.power != "on":
            self._step("powered on", lambda: self._apply(power="on"), held=False)
        elif self.record is None and self.found.power != "on" and self.power == "recorded":
            self.remarks.append("nothing is written down of how it was, so it stays off; rollback_power=on powers it on")
        if self.record is not None and wanted == "on" and not self.check:
            # a card may have been connected by hand though it is not to be at power on
            fence.set_cards(self.session, self.vm, self.record.cards, step="connect the network cards")

    def _attributes(self) -> None:
        now: Mapping[str, str] = self.state.attributes
        touched = self.record is not None or now.get(fence.STATE, "") not in ("", ROLLED_BACK)
        if touched and not self.errors:
            self._step(f"state {ROLLED_BACK}", lambda: self._apply(attributes={fence.STATE: ROLLED_BACK}), held=False)
            if now.get(fence.BEFORE):
                self._step("old state forgotten", lambda: self._apply(attributes={fence.BEFORE: ""}), held=False)
