# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a migration changes of its source, written down at the VM before it is changed; and its network cards taken off the network.

What was found stands in a custom attribute of the VM: it outlives the run, any machine can read it, and a rollback needs nothing
else. Each value is written down at the time when it is first changed, so a card that was altered between a precopy and its cutover
comes back as it was at the cutover.

Vendor reference: vSphere Web Services API, VirtualDeviceConnectInfo (connected: "whether the device is currently connected. Valid
only while the virtual machine is running"; startConnected: "whether or not to connect the device when the virtual machine starts").
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import Any, Iterable, Mapping

from ..errors import BadInput, ServerError, bounded
from .client import Session
from .find import VmRef
from .properties import POWER, of_objects
from .steady import PATIENCE
from .tasks import wait_task

#: The custom attribute that holds the record, and the one that says how far the migration is.
BEFORE, STATE = "ferry.before", "ferry.state"
VERSION = 1
#: No record of ours is longer (characters): a VM has ten cards and sixty disks at most.
MAX_RECORD = 8192
#: Seconds that vCenter has for a reconfiguration.
TASK_TIMEOUT = 300.0
_ATTEMPTS = 4
_STEP = "disconnect the network cards"
_CTK = re.compile(r"^((?:scsi|ide|sata|nvme)\d+:\d+)\.ctkEnabled$", re.IGNORECASE)


@dataclass(frozen=True)
class Card:
    """A network card. C(connected): now; C(start): at power on."""

    key: int
    label: str
    connected: bool
    start: bool

    def as_dict(self) -> dict[str, Any]:
        return {"key": self.key, "label": self.label, "connected": self.connected, "start_connected": self.start}


@dataclass(frozen=True)
class Found:
    """What is at the source. C(options): the words *.ctkEnabled of the extra configuration, by address of the disk."""

    power: str
    cards: tuple[Card, ...]
    tracked: bool
    options: Mapping[str, str]


@dataclass(frozen=True)
class Record:
    """What was at the source before it was changed. C(cards): (connected, start) by key. C(options): see Found.

    C(fenced): the cards are as they were when they were about to be taken off the network; else they were only looked at.
    """

    vm: str
    power: str
    state: str
    cards: Mapping[int, tuple[bool, bool]]
    tracked: bool
    options: Mapping[str, str]
    fenced: bool = False

    def text(self) -> str:
        """The value of the attribute."""
        cards = {str(key): f"{connected:d}{start:d}" for key, (connected, start) in sorted(self.cards.items())}
        said = {"v": VERSION, "vm": self.vm, "power": self.power, "state": self.state, "nics": cards}
        return json.dumps(
            {**said, "cbt": self.tracked, "ctk": dict(self.options), "fenced": self.fenced}, separators=(",", ":"), sort_keys=True
        )


def parse(text: str | None, vm: str) -> Record | None:
    """The record in the attribute's value; None where there is none, or where it came from another VM with a clone.

    :param vm: instance UUID.
    :raises BadInput: code record: it is there and cannot be read.
    """
    if not text:
        return None
    try:
        if len(text) > MAX_RECORD:
            raise ValueError("too long")
        said = json.loads(text)
        if said["v"] != VERSION:
            raise ValueError(f"version {said['v']}")
        if str(said["vm"]).lower() != vm.lower():
            return None
        power, state = str(said["power"]), str(said["state"])[:80]
        if power not in ("on", "off", "suspended"):
            raise ValueError(f"power {power}")
        cards = {int(key): (value[0] == "1", value[1] == "1") for key, value in said["nics"].items()}
        options = {str(k).lower(): str(v)[:20] for k, v in said["ctk"].items()}
        if any(not _CTK.match(f"{address}.ctkEnabled") for address in options):
            raise ValueError("an address that is none")
        return Record(vm.lower(), power, state, cards, bool(said["cbt"]), options, bool(said["fenced"]))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError, OverflowError) as e:
        raise BadInput(
            f"The custom attribute {BEFORE} of the VM, where its old state was written down, cannot be read.",
            code="record",
            step="read the old state",
            said=f"{type(e).__name__}: {e}; it begins with {bounded(text, 80)}",
            next_command=f"bring the VM back by hand (power, network cards), empty {BEFORE}, and run it again",
        ) from e


def merged(kept: Record | None, found: Found, vm: str, state: str, *, power: bool, cards: bool) -> Record:
    """The record with what is about to be changed. Pure.

    :param kept: what is written down already.
    :param state: the present value of C(ferry.state).
    :param power: whether the power is about to be changed; else what is known of it stays.
    :param cards: whether the cards are.
    """
    now = {c.key: (c.connected if found.power == "on" else c.start, c.start) for c in found.cards}
    if kept is None:
        return Record(vm.lower(), found.power, state, now, found.tracked, dict(found.options), cards)
    known = dict(now if cards and not kept.fenced else kept.cards)
    if cards and kept.fenced:
        # An earlier run began with it: what is off the network was taken off by us, and what is on again somebody has connected.
        for card in found.cards:
            ours = card.key in known and (not card.start and not card.connected or found.power != "on" and card.start == known[card.key][1])
            known[card.key] = known[card.key] if ours else now[card.key]
    return replace(kept, power=found.power if power else kept.power, cards=known, fenced=kept.fenced or cards)


def found_in(props: Mapping[str, Any]) -> Found:
    """What the property collector read. Pure."""
    cards = [
        Card(int(d.key), str(d.deviceInfo.label if d.deviceInfo else d.key), bool(c and c.connected), bool(c and c.startConnected))
        for d in props.get("config.hardware.device") or ()
        if hasattr(d, "macAddress")
        for c in (d.connectable,)
    ]
    options = {}
    for option in props.get("config.extraConfig") or ():
        match = _CTK.match(str(option.key))
        if match and str(option.value or ""):
            options[match[1].lower()] = str(option.value)
    power = str(props.get("runtime.powerState", ""))
    return Found(POWER.get(power, power), tuple(cards), bool(props.get("config.changeTrackingEnabled")), options)


_LEAVES = ("runtime.powerState", "config.hardware.device", "config.changeTrackingEnabled", "config.extraConfig", "config.changeVersion")


def _props(session: Session, vm: VmRef, step: str) -> Mapping[str, Any]:
    rows = of_objects(session, [vm.ref], {"VirtualMachine": _LEAVES}, step=step)
    if not rows:
        raise BadInput("The VM is gone from vCenter.", vm=vm.name, step=step)
    return rows[0].props


def read(session: Session, vm: VmRef) -> Found:
    """What is at the source now."""
    return found_in(_props(session, vm, "read the VM"))


def differing(found: Found, wanted: Mapping[int, tuple[bool, bool]]) -> list[int]:
    """Keys of the cards that are not as C(wanted) (connected, start) says. Of a VM that is off, connected says nothing. Pure."""
    on = found.power == "on"
    return [c.key for c in found.cards if c.key in wanted and (c.start != wanted[c.key][1] or on and c.connected != wanted[c.key][0])]


def off_the_network(found: Found) -> dict[int, tuple[bool, bool]]:
    """What the cards are to be so that no power on by mistake takes an address."""
    return {c.key: (False, False) for c in found.cards}


def set_cards(session: Session, vm: VmRef, wanted: Mapping[int, tuple[bool, bool]], *, step: str = _STEP) -> bool:
    """Connect and disconnect cards: C(wanted) (connected, start) by key. Cards that are gone are left out. Whether anything was done."""
    for attempt in range(_ATTEMPTS):
        props = _props(session, vm, step)
        found = found_in(props)
        todo = differing(found, wanted)
        if not todo:
            return attempt > 0
        vim = session.vim
        changes = []
        for device in props["config.hardware.device"]:
            if device.key in todo:
                connected, start = wanted[device.key]
                device.connectable = device.connectable or vim.vm.device.VirtualDevice.ConnectInfo(allowGuestControl=True)
                device.connectable.connected = connected and found.power == "on"
                device.connectable.startConnected = start
                changes.append(vim.vm.device.VirtualDeviceSpec(operation="edit", device=device))
        # changeVersion makes vCenter refuse where somebody else has changed the VM since it was read
        spec = vim.vm.ConfigSpec(deviceChange=changes, changeVersion=props.get("config.changeVersion"))
        try:
            task = session.call(vm.ref.ReconfigVM_Task, spec, step=step)
            wait_task(session, task, vm=vm.name, step=step, timeout=TASK_TIMEOUT, patience=PATIENCE)
        except ServerError as e:
            if e.details.get("fault") != "ConcurrentAccess" or attempt == _ATTEMPTS - 1:
                raise e.add(vm=vm.name) from e
    left = differing(read(session, vm), wanted)
    if left:
        labels: Iterable[str] = (c.label for c in found.cards if c.key in left)
        raise ServerError(
            "vCenter left network cards as they were, though its tasks succeeded.", vm=vm.name, step=step, said=", ".join(labels)
        )
    return True


def set_tracking(session: Session, vm: VmRef, record: Record) -> None:
    """The words of change tracking as they were, of a VM that is off, or whose tracking has been switched off already."""
    step = "set change tracking back"
    found = read(session, vm)
    vim = session.vim
    words = {address: record.options.get(address, "") for address in {*found.options, *record.options}}
    changed = [vim.option.OptionValue(key=f"{a}.ctkEnabled", value=v) for a, v in sorted(words.items()) if found.options.get(a, "") != v]
    if not changed and found.tracked == record.tracked:
        return
    spec = vim.vm.ConfigSpec(extraConfig=changed)
    if found.tracked != record.tracked:
        spec.changeTrackingEnabled = record.tracked
    task = session.call(vm.ref.ReconfigVM_Task, spec, step=step)
    wait_task(session, task, vm=vm.name, step=step, timeout=TASK_TIMEOUT, patience=PATIENCE)


def same_tracking(found: Found, record: Record) -> bool:
    """Whether change tracking is as it was. Pure."""
    return found.tracked == record.tracked and dict(found.options) == dict(record.options)
