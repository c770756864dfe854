# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Converting a guest on its volumes, files or devices: what vm_guest_convert does, free of Ansible.

Volumes are attached as a copy attaches them, so that nobody else writes. What a run is about to do stands at the volumes and in the journal
of its layers; between the two, whatever was killed is undone or finished by the next run:

* killed before the layers go down: nothing has changed, the layers are thrown away;
* killed while they go down: the volumes say C(committing) with a token, the journal has the same: they go down once more;
* the same, and the journal is gone with its machine: the volumes are copied anew, since what stands there is neither the one nor the other.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from typing import Any, Mapping, Sequence

from ..disk.progress import Progress
from ..errors import BadInput, Busy, FerryError, bounded
from ..guest import decide, tools, work
from ..guest.identity import checked
from ..guest.layers import COMMITTING, Layers
from ..guest.model import Disk, GuestError, Target, cards_of
from ..long_task import progress_from
from ..openstack_cloud import client as openstack_client
from ..openstack_cloud import guests, volumes
from ..vsphere import snapshot_tag
from .attaching import Attaching
from .targets import CHANGE_ID, DIGEST, LEDGER, STATE, state_dir
from .wanted import Wanted

_STEP = "convert the guest"
_KILLED = "an earlier run was killed while it wrote it down"
#: Errors of a guest that C(unsupported: skip) lands as it is.
SKIPPED = ("unknown_os", "unsupported_os", "several_systems")


def run(params: Mapping[str, Any], *, check: bool = False) -> dict[str, Any]:
    """Convert the guest whose disks C(params) (the options of vm_guest_convert) name. See the module for options and results.

    :raises FerryError: the disks are as they were, unless its C(left) says otherwise.
    """
    with contextlib.ExitStack() as stack:
        progress = progress_from(params, name=str(params.get("vm") or ""), unit="steps")
        if not check:
            stack.enter_context(progress)
            progress.install_signals()
        try:
            return _Conversion(params, stack, progress, check).run()
        except FerryError as e:
            e.add(vm=params.get("vm"))
            raise


class _Conversion:
    def __init__(self, params: Mapping[str, Any], stack: contextlib.ExitStack, progress: Progress, check: bool) -> None:
        self.params = params
        self.stack = stack
        self.progress = progress
        self.check = check
        self.folder = state_dir(params.get("ledger"))
        self.wanted = _wanted(params["disks"])
        self.volumes = [w.dest["volume"] for w in self.wanted if w.dest.get("volume")]
        self.attaching = Attaching()
        self.token = secrets.token_hex(8)
        self.said: dict[str, Mapping[str, str]] = {}
        self.conn: Any = None

    def run(self) -> dict[str, Any]:
        wishes = _wishes(self.params)
        if self.volumes:
            # validate_certs and ca_path are vCenter's in a play; OpenStack's are in clouds.yaml or ca_cert.
            self.conn = openstack_client.connect({**self.params, "validate_certs": None})
            self.stack.callback(self.conn.close)
            self.said = {v: dict(volumes.get_volume(self.conn, v).get("metadata") or {}) for v in self.volumes}
        known = [guests.needs(self.said[v]) for v in self.volumes]
        if self.volumes and len(known) == len(self.wanted) and all(known) and not self.params.get("force"):
            with Layers(os.path.join(self.folder, "guests"), self._name()) as layers:
                layers.clear()  # of a run that was killed when all was done
            return _row(converted=False, action=decide.NOTHING, reasons=["its volumes say that it suits this hardware"], target=known[0])
        absent = tools.missing()
        if absent and self.params.get("missing_tools") == "skip":
            return _row(
                converted=False,
                action="skipped",
                reasons=[f"{' and '.join(absent)} {'is' if len(absent) == 1 else 'are'} missing on the conversion host"],
                target=None,
            )
        tools.need()
        layers = self.stack.enter_context(Layers(os.path.join(self.folder, "guests"), self._name()))
        disks = self._disks()
        hooks = work.Hooks(self.progress.check, self._tell, self._committing, self._say, self.token)
        try:
            if self.check:
                if layers.phase == COMMITTING:
                    return {**_row(converted=False, action=decide.CONVERT, reasons=[_KILLED], target=None), "changed": True}
                planned = work.planned(disks, wishes, hooks)
                return {**planned.as_dict(), "changed": planned.action != decide.NOTHING}
            finished = self._finish(disks, layers, hooks)
            if finished is not None:
                return finished
            outcome = work.run(disks, wishes, layers, hooks, timeout=float(self.params.get("timeout") or 3600))
        except GuestError as e:
            if e.code in SKIPPED and self.params.get("unsupported") == "skip":
                return _row(converted=False, action="skipped", reasons=[e.message], target=None)
            raise
        if not outcome.converted and outcome.target is not None:
            self._say(outcome.target)
        return {**outcome.as_dict(), "changed": outcome.converted}

    # -- the disks ---------------------------------------------------------------------------------------------------

    def _name(self) -> str:
        """The same for the same disks, on every run."""
        targets = "\0".join(w.target for w in self.wanted)
        return f"{self.params.get('vm') or 'guest'}-{hashlib.sha256(targets.encode()).hexdigest()[:16]}"

    def _disks(self) -> list[Disk]:
        on_volumes = [w for w in self.wanted if w.dest.get("volume")]
        if on_volumes:
            self.stack.callback(self.attaching.detach)
            self.attaching.attach(self.conn, on_volumes, self.params, self.folder)
        found = []
        for w in self.wanted:
            path = self.attaching.attached[w.dest["volume"]].path if w.dest.get("volume") else os.path.abspath(w.dest["path"])
            if not os.path.exists(path):
                raise BadInput("There is no such disk.", disk=w.label, step="read the options", said=path)
            if not self.check and not os.access(path, os.R_OK | os.W_OK):
                raise BadInput("This disk cannot be written by this user.", disk=w.label, step="read the options", said=path)
            found.append(Disk(path, w.label, w.format))
        return found

    # -- what stands at the volumes ----------------------------------------------------------------------------------

    def _finish(self, disks: Sequence[Disk], layers: Layers, hooks: work.Hooks) -> dict[str, Any] | None:
        """Write down what a killed run had begun to; None where nothing had been begun.

        :raises GuestError: code C(torn), where the rest of it is gone: the volumes are to be copied anew.
        """
        tokens = {guests.token(said) for said in self.said.values()} - {""}
        mine = layers.phase == COMMITTING and layers.said.get("disks") == len(disks)
        if mine and self.volumes and layers.said.get("token") not in tokens:
            mine = False  # copied anew since: these layers are of another time
        if not mine and tokens:
            for volume in self.volumes:
                volumes.set_metadata(self.conn, volume, {STATE: "copying", DIGEST: "", CHANGE_ID: ""}, unset=(guests.GUEST,))
            raise GuestError(
                "A conversion was killed while it was written to the volumes, and its other half is not on this machine.",
                code="torn",
                step=_STEP,
                left="volumes whose disks are to be copied anew",
                next_command="the same command again: it copies the disks anew, then converts the guest",
            )
        if not mine:
            return None
        self.token = hooks.token = str(layers.said.get("token") or self.token)
        fields = json.loads(str(layers.said["target"]))
        outcome = dict(layers.said.get("outcome") or {})
        work.write_down(disks, layers, hooks, Target(**{k: fields[k] for k in guests.FIELDS}))
        return {
            **_row(converted=True, action=decide.CONVERT, reasons=[_KILLED], target=fields),
            **outcome,
        }

    def _committing(self) -> None:
        for volume, attached in self.attaching.attached.items():
            if not attached.still_ours():
                raise Busy("The volume was taken over by another host meanwhile.", step=_STEP, volume=volume)
        for volume in self.volumes:
            known = self.said[volume]
            # From here on the ledger's digests are not of what stands there: whoever copies to it again has to copy all of it.
            said = {
                guests.GUEST: guests.COMMITTING + self.token,
                guests.COPIED: known.get(DIGEST) or known.get(guests.COPIED) or "",
                LEDGER: f"{snapshot_tag.host_name()}:converted",
                DIGEST: "",
                CHANGE_ID: "",
            }
            volumes.set_metadata(self.conn, volume, said)

    def _say(self, target: Target) -> None:
        for volume in self.volumes:
            volumes.set_metadata(self.conn, volume, {guests.GUEST: target.as_text()})

    def _tell(self, step: str, what: str) -> None:
        steps = work.STEPS
        self.progress.update("guest", step, steps.index(step), len(steps), why=what)
        self.progress.check()


def _wanted(entries: Sequence[Mapping[str, Any]]) -> list[Wanted]:
    found = []
    for number, entry in enumerate(entries):
        if len([k for k in ("path", "volume") if entry.get(k)]) != 1:
            raise BadInput("Each of disks needs one of path and volume.", step="read the options")
        dest = {k: str(entry[k]) for k in ("path", "volume") if entry.get(k)}
        if dest.get("volume"):
            dest["volume"] = volumes.volume_id_of(dest["volume"])
        kind = str(entry.get("format") or "raw")
        if kind != "raw" and dest.get("volume"):
            raise BadInput("A volume is raw: format belongs to path.", step="read the options")
        label = str(entry.get("label") or f"disk {number + 1}")
        found.append(Wanted(label, next(iter(dest.values())), 0, dest, kind))
    targets = [w.target for w in found]
    if not targets or len(set(targets)) != len(targets):
        raise BadInput("disks needs each disk of the guest once, in their order.", step="read the options")
    return found


def _wishes(params: Mapping[str, Any]) -> decide.Wishes:
    root = str(params.get("root") or "first")
    if root not in ("first", "single") and not root.startswith("/dev/"):
        raise BadInput(f"root is first, single or a device such as /dev/sda2, not {bounded(root, 60)!r}.", step="read the options")
    return decide.Wishes(
        cards=cards_of(params.get("nics")),
        addresses=checked(params.get("addresses")),
        firmware=str(params.get("firmware") or ""),
        root=root,
        virtio_win=str(params.get("virtio") or ""),
        first_boot=bool(params.get("first_boot")),
        force=bool(params.get("force")),
    )


def _row(*, converted: bool, action: str, reasons: list[str], target: Mapping[str, str] | None) -> dict[str, Any]:
    return {
        "changed": converted,
        "os": None,
        "converted": converted,
        "action": action,
        "reasons": reasons,
        "changes": [],
        "target": dict(target) if target else None,
        "remarks": [],
        "undone": False,
    }
