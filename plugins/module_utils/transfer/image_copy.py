# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One disk of a copy straight into an image of Glance: without a ledger, since Glance takes an image's data whole or not at all.

What tells a second run that nothing is to do stands at the image: the state of the source where the VM was off, and the digest of the
disk. An upload that was cut begins anew, under the same image id.
"""

from __future__ import annotations

import os
import time
from typing import Any, Callable, Mapping

from ..disk.copy import Result
from ..disk.model import Kind, Source
from ..disk.progress import Progress
from ..errors import BadInput, ServerError
from ..openstack_cloud import forms, images
from ..openstack_cloud.disk_image import DiskUpload, data_sha512
from .image_source import Metered, metered
from .targets import DIGEST, DISK_KEY, SOURCE, SOURCE_STATE, state_of, tells_its_state
from .wanted import Wanted
from .ways import Way

#: Seconds that Glance gets for an import (upload into several stores).
IMPORT_TIMEOUT = 3600


class ImageCopy:
    """The image that C(w) names.

    :param conn: gives the connection to OpenStack.
    :param source_id: the VM's instance UUID; empty for a file or an export.
    :param vm: facts of the VM (guest.read_vms), empty for a file.
    :raises BadInput: the options ask for what no image can be.
    """

    def __init__(
        self,
        w: Wanted,
        way: Way,
        params: Mapping[str, Any],
        conn: Callable[[], Any],
        progress: Progress,
        *,
        source_id: str = "",
        vm: Mapping[str, Any] | None = None,
    ) -> None:
        self.wanted = w
        self.way = way
        self._params = params
        self._conn = conn
        self._progress = progress
        self._vm = dict(vm or {})
        self._options: dict[str, Any] = {k: v for k, v in w.image.items() if v is not None}
        self._hypervisor = str(self._options.get("hypervisor") or "kvm")
        self._marks = {SOURCE: source_id or w.key, DISK_KEY: w.key, images.TARGET: "image"}
        self._sent: dict[str, Any] | None = None
        self._bytes_sent = 0
        self._check_options()

    def _check_options(self) -> None:
        step = "read the options"
        if self._params["mode"] == "incremental":
            raise BadInput(
                "An image is sent whole: Glance changes no image's data, so mode incremental has no image.",
                code="no_incremental",
                disk=self.wanted.label,
                step=step,
                next_command="leave mode out, or copy into a volume (dest.volume), which takes changes alone",
            )
        if self._params.get("checksum") == "sha256":
            raise BadInput(
                "checksum sha256 is of a target's bytes, and an image has others than its disk.",
                disk=self.wanted.label,
                step=step,
                next_command="use verify: full, which reads the image back",
            )
        forms.of_disk(self.wanted.label, 0, _nothing, hypervisor=self._hypervisor, raw=self._raw)
        if not self.way.ranges and not self._raw and self._hypervisor == "kvm":
            raise BadInput(
                "This disk comes as a stream, once. A streamOptimized image for KVM says in front where everything lies, so its disk has to"
                " be read twice.",
                code="needs_ranges",
                disk=self.wanted.label,
                step=step,
                said=self.way.why,
                next_command="use format: raw, or another transport (https, nbd)",
            )

    @property
    def _raw(self) -> bool:
        return self.wanted.format == "raw"

    # -- before anything is read ---------------------------------------------------------------------------------------

    def already(self, source: Source, *, check: bool = False) -> dict[str, Any] | None:
        """The row of an image that says itself that it holds this state of the source; None where there is work to be done."""
        if self._params["mode"] == "full" or not tells_its_state(source):
            return None
        found = self._upload(None, check=check).held(SOURCE_STATE, state_of(source))
        if found is None:
            return None
        image = found["image"]
        digest = str(image.get(DIGEST) or "")
        row = Result(self.wanted.label, self.wanted.capacity, mode="none", digest=digest, changed=bool(found["changed"])).as_dict()
        if self._params["verify"] == "full" and not check:
            row.update(self._read_back(image, found["sha512"]))
        return {**row, "image": _shown(image), "sha512": found["sha512"]}

    def predict(self, source: Source | None) -> dict[str, Any]:
        """The row for check mode. C(source): None where it can only be opened at a snapshot."""
        rows = self._upload(None).found()
        to_read = self.wanted.capacity
        if source is not None:
            to_read = sum(e.length for e in source.extents() if e.kind == Kind.DATA)
        row = Result(self.wanted.label, self.wanted.capacity, changed=True)
        if any(i["status"] == "active" for i in rows):
            row.reason = "An image of this name is there: its disk is compared, and nothing is sent where it is this one."
        return {**row.as_dict(), "bytes_to_read": to_read, "image": None}

    # -- sending -------------------------------------------------------------------------------------------------------

    def send(self, source: Source, throttle: Callable[[int], None]) -> dict[str, Any]:
        """Send the disk, unless Glance has it; the row."""
        began = time.monotonic()
        meter = metered(source, throttle)
        found = self._upload(meter).run()
        image = found["image"]
        self._sent, self._bytes_sent = image, int(found["bytes_sent"])
        result = Result(
            self.wanted.label,
            self.wanted.capacity,
            mode="full" if found["bytes_sent"] else "compare",
            digest=str(image.get(DIGEST) or ""),
            bytes_read=meter.bytes_read,
            bytes_written=found["bytes_sent"],
            # Upload compares Glance's own SHA-512 of what it was sent.
            verified="hash" if found["bytes_sent"] else "none",
            changed=bool(found["changed"]),
        )
        row = result.as_dict()
        if self._params["verify"] == "full":
            row.update(self._read_back(image, found["sha512"]))
        row["seconds"] = round(time.monotonic() - began, 3)
        self._progress.finish(self.wanted.label, why=None if found["bytes_sent"] else "there already")
        return {**row, "image": _shown(image), "sha512": found["sha512"]}

    def commit(self, final: Source | None) -> None:
        """Say at the image which state of the source C(final) it holds; None where the VM runs on, and all is compared the next time."""
        if self._sent is not None:
            state = state_of(final) if final is not None and tells_its_state(final) else None
            images.change(self._conn(), self._sent, {SOURCE_STATE: state})

    def withdraw(self) -> ServerError | None:
        """Remove the image, where this run has sent it: its disk was written to while it was read, so it is a mixture. What to raise."""
        image = self._sent
        if image is None or not self._bytes_sent:
            return None
        if image.get("protected"):
            image = images.change(self._conn(), image, {"protected": False})
        images.delete(self._conn(), image)
        return ServerError(
            "The VM was started while its disk was read, so the image holds no state of it.",
            code="vm_started",
            disk=self.wanted.label,
            step="look at the VM",
            left="nothing: the image was removed",
            next_command="run it again: the disk of a VM that runs is read at a snapshot",
        )

    def _read_back(self, image: Mapping[str, Any], sha512: str | None) -> dict[str, Any]:
        size = int(image.get("size") or 0)

        def watch(done: int, total: int) -> None:
            self._progress.check()
            self._progress.update(self.wanted.label, "verify", done, total)

        if data_sha512(self._conn(), str(image["id"]), watch, size) != sha512:
            raise ServerError(
                "Glance gives back other bytes than were sent.",
                code="target_damaged",
                disk=self.wanted.label,
                step="verify",
                left=f"image {image['id']}; make nothing of it",
                next_command="look at Glance's store, remove the image and run again",
            )
        return {"verified": "full", "bytes_verified": size}

    def _upload(self, meter: Metered | None, *, check: bool = False) -> DiskUpload:
        def opener() -> Source:
            return _nothing() if meter is None else meter

        params = {
            **self._options,
            "name": self.wanted.dest["image"],
            "hypervisor": self._hypervisor,
            "timeout": IMPORT_TIMEOUT,
            **self._machine(),
        }
        return DiskUpload(self._conn(), params, self._watch, self._form(opener), self._marks, check=check)

    def _form(self, opener: Callable[[], Source]) -> forms.Form:
        disk = self.wanted.facts
        return forms.of_disk(
            self.wanted.label,
            self.wanted.capacity,
            opener,
            hypervisor=self._hypervisor,
            raw=self._raw,
            adapter=(disk.adapter if disk is not None else None) or self._options.get("adapter_type"),
            # Threads wait for the network as well as they compress.
            threads=max(int(self._params["workers"]), os.cpu_count() or 1),
        )

    def _machine(self) -> dict[str, Any]:
        """What the VM says of the machine around the disk, as options of glance_vmdk_upload."""
        nics = self._vm.get("nics") or ()
        return {
            "guest_id": self._vm.get("guest_id"),
            "firmware": self._vm.get("firmware"),
            "secure_boot": self._vm.get("secure_boot"),
            "nic_type": nics[0].type if nics else None,
            "hardware": self._options.get("hardware") or "source",
            "disk_count": len(self._vm.get("disks") or ()) or 1,
        }

    def _watch(self, phase: str, done: int, total: int) -> None:
        self._progress.check()
        if total:
            self._progress.update(self.wanted.label, phase, done, total)


def _nothing() -> Source:
    raise BadInput("This disk is not open yet.", step="open the source")


def _shown(image: Mapping[str, Any]) -> dict[str, Any]:
    return {k: image.get(k) for k in ("id", "name", "status", "size", "disk_format", "min_disk", "visibility")}
