# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Put a disk file into Glance as something that Glance takes and Nova boots: what glance_vmdk_upload does, free of Ansible."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Callable, Mapping

from ..disk import controllers
from ..disk.vmdk.info import inspect
from ..disk.vmdk.kinds import kind_of
from ..disk.vmdk.reader import open_disk
from ..disk.vmdk.stream_writer import predict_size
from ..errors import BadInput, FerryError, ServerError, bounded
from . import images
from .sending import AsIs, Converted, Sender, disk_digest, file_sha512
from .target import DIGEST, STATE

GIB = 1 << 30
#: C(progress(phase, done, total)): what is done, bytes done and in all. It may raise to stop the work.
Progress = Callable[[str, int, int], None]
#: Statuses of an image that a cut upload of ours may have left, and one that somebody is sending.
UNFINISHED = ("queued", "saving", "uploading", "importing")
#: Seconds that a server gets to notice that the sender of an image has died.
FREE_SECONDS = 60.0
#: Properties that say the controller: those of an earlier choice do not stay beside the new one's.
CONTROLLER_KEYS = ("hw_disk_bus", "hw_scsi_model", "vmware_adaptertype", "vmware_disktype")
#: Attributes that a run mends on an image that is there.
MENDED = ("visibility", "protected", "min_disk", "min_ram")


@dataclass
class Form:
    """How a file is sent. C(converted_to) is None where it is sent as it is."""

    path: str
    kind: str
    capacity: int
    disk_format: str
    disktype: str | None
    adapter: str | None
    converted_to: str | None
    reasons: list[str]

    @property
    def size(self) -> int | None:
        """Bytes that will be sent, where that is known before."""
        return None if self.converted_to else os.path.getsize(self.path)


def decide(path: str, *, hypervisor: str, convert: str, adapter_type: str | None = None) -> Form:
    """How the file at C(path) is sent so that Glance takes it and Nova boots it.

    :raises BadInput: the file would not be taken and may not, or cannot, be converted; says why.
    """
    facts = inspect(path, hypervisor)
    verdict = facts["glance"]
    broken = [p["message"] for p in facts["problems"] if p["severity"] != "warning"]
    if broken:
        raise BadInput(f"This disk cannot be read whole: {broken[0]}", disk=path, step="look at the disk", problems=facts["problems"][:10])
    kind = kind_of(path)
    named = adapter_type or facts["adapter_type"]
    form = Form(
        path=path,
        kind=kind,
        capacity=facts["capacity"],
        disk_format=verdict["disk_format"] or "vmdk",
        disktype=verdict["vmware_disktype"],
        adapter=named,
        converted_to=None,
        reasons=list(verdict["reasons"]),
    )
    # A raw disk would be taken, but its zeroes would travel with it.
    good = verdict["accepted"] and kind != "raw" and not any("convert it" in r for r in verdict["reasons"])
    if good or (convert == "never" and verdict["accepted"]):
        return form
    why = "; ".join(form.reasons) or "it is raw"
    if convert == "never":
        raise BadInput(
            "Glance would refuse this file, and convert is never.",
            disk=path,
            step="look at the disk",
            said=why,
            next_command="Set convert: auto.",
        )
    if kind == "qcow2":
        raise BadInput(
            "A qcow2 image cannot be converted on the fly.",
            disk=path,
            step="look at the disk",
            said=why,
            next_command="Convert it first: ferry.vmware.vmdk_convert with format: streamOptimized.",
        )
    form.disk_format, form.disktype, form.converted_to = "vmdk", "streamOptimized", "streamOptimized"
    return form


def properties_for(form: Form, *, hypervisor: str, disktype: str | None, own: Mapping[str, Any] | None) -> dict[str, str]:
    """Image properties for the disk's controller, in the family of the hypervisor; the user's own win.

    :raises BadInput: the user's properties and ours, or the user's among themselves, name two controllers.
    """
    mine = {str(k): str(v) for k, v in (own or {}).items()}
    found: dict[str, str] = {}
    controller = controllers.find(form.adapter) if form.adapter else None
    families = {"hw": ("hw_disk_bus", "hw_scsi_model"), "vmware": ("vmware_adaptertype",)}
    said = {name for name, keys in families.items() if any(k in mine for k in keys)}
    if hypervisor == "vmware":
        if form.disk_format == "vmdk" and (disktype or form.disktype):
            found["vmware_disktype"] = str(disktype or form.disktype)
        if controller and controller.vmware_adaptertype and "hw" not in said:
            found["vmware_adaptertype"] = controller.vmware_adaptertype
    elif controller and "vmware" not in said and "hw_disk_bus" not in mine:
        found["hw_disk_bus"] = "virtio" if controller.name == "nvme" else controller.hw_disk_bus
        if controller.hw_scsi_model:
            found["hw_scsi_model"] = controller.hw_scsi_model
    found.update(mine)
    adapter = controllers.find(found["vmware_adaptertype"]) if "vmware_adaptertype" in found else None
    if adapter and (
        found.get("hw_scsi_model", adapter.hw_scsi_model) != adapter.hw_scsi_model
        or found.get("hw_disk_bus", adapter.hw_disk_bus) != adapter.hw_disk_bus
    ):
        raise BadInput(
            "The properties name two controllers: where hw_disk_bus or hw_scsi_model is set, Nova does not look at vmware_adaptertype.",
            code="conflict",
            step="read the options",
            properties={k: v for k, v in found.items() if k in ("vmware_adaptertype", "hw_disk_bus", "hw_scsi_model")},
        )
    return {k: v for k, v in found.items() if v != ""}


class Upload:
    """One image to be as C(params), the options of glance_vmdk_upload, say."""

    def __init__(self, conn: Any, params: Mapping[str, Any], progress: Progress, *, check: bool = False) -> None:
        self._conn = conn
        self._params = params
        self._progress = progress
        self._check = check

    def run(self) -> dict[str, Any]:
        """The module's result."""
        found = images.find(self._conn, self._params["name"])
        if self._params["state"] == "absent":
            return self._absent(found)
        if self._params.get("import_method") == "web-download":
            return self._web_download(found)
        form = decide(
            self._params["src"],
            hypervisor=self._params["hypervisor"],
            convert=self._params["convert"],
            adapter_type=self._params.get("adapter_type"),
        )
        own = properties_for(
            form, hypervisor=self._params["hypervisor"], disktype=self._params.get("disktype"), own=self._params.get("properties")
        )
        attributes = self._attributes(form.disk_format, -(-form.capacity // GIB))
        active = [i for i in found if i["status"] == "active"]
        same, sha512 = self._same(active, form)
        if same is not None:
            return self._mend(same, own, attributes, {"converted_to": form.converted_to, "bytes_sent": 0, "sha512": sha512})
        if active:
            raise BadInput(
                f"There is an image named {bounded(self._params['name'], 80)} with other content: {', '.join(i['id'] for i in active)}.",
                code="other_content",
                step="compare with the image",
                next_command="Remove it with state: absent, or choose another name.",
            )
        if self._check:
            return self._predict(form, own, attributes)
        return self._send(found, form, own, attributes)

    def _absent(self, found: list[dict[str, Any]]) -> dict[str, Any]:
        if len(found) > 1:
            raise BadInput(
                f"There are {len(found)} images of this name: {', '.join(i['id'] for i in found)}.",
                step="find the image",
                next_command="Give an id as name.",
            )
        for image in found:
            if not self._check:
                images.delete(self._conn, image)
        return {"changed": bool(found), "image": None, "converted_to": None, "bytes_sent": 0, "sha512": None}

    def _attributes(self, disk_format: str, min_disk: int) -> dict[str, Any]:
        given = {k: self._params[k] for k in MENDED if self._params.get(k) is not None}
        if self._params.get("tags") is not None:
            given["tags"] = sorted(self._params["tags"])
        if self._params.get("members") and given.setdefault("visibility", "shared") != "shared":
            raise BadInput("Only an image with visibility shared has members.", step="read the options")
        return {"min_disk": min_disk, **given, "disk_format": disk_format, "container_format": "bare"}

    def _same(self, active: list[dict[str, Any]], form: Form) -> tuple[dict[str, Any] | None, str | None]:
        """The active image with this content, and the SHA-512 of what was or would be sent."""
        if not active:
            return None, None
        if form.converted_to:
            if not any(i.get(DIGEST) for i in active):
                return None, None
            digest = disk_digest(form.path, form.kind, lambda done, total: self._progress("compare", done, total))
            found = next((i for i in active if i.get(DIGEST) == digest), None)
            return found, found.get("os_hash_value") if found else None
        size = form.size or 0
        if not any(i.get("size") == size for i in active):
            return None, None
        sha512 = file_sha512(form.path, lambda done, total: self._progress("compare", done, total), size)
        return next((i for i in active if i.get("os_hash_algo") == "sha512" and i.get("os_hash_value") == sha512), None), sha512

    def _mend(
        self, image: dict[str, Any], own: Mapping[str, str], attributes: Mapping[str, Any], facts: Mapping[str, Any]
    ) -> dict[str, Any]:
        fixed = ("disk_format", "container_format")  # of an image that has data, these never change
        wanted: dict[str, Any] = {k: v for k, v in attributes.items() if k not in fixed}
        if self._params.get("min_disk") is None:
            wanted.pop("min_disk", None)
        wanted.update(own)
        if any(k in own for k in CONTROLLER_KEYS):
            wanted.update({k: None for k in CONTROLLER_KEYS if k in image and k not in own})
        if self._params.get("tags") is not None:
            image["tags"] = sorted(image.get("tags") or ())
        differing = {k: v for k, v in wanted.items() if image.get(k) != v}
        before: dict[str, Any] = {k: image.get(k) for k in differing}
        after: dict[str, Any] = dict(differing)
        has = self._members_of(image)
        shared = self._params.get("members")
        if shared is not None and sorted(shared) != has:
            before["members"], after["members"] = has, sorted(shared)
        if after and not self._check:
            image = images.change(self._conn, image, differing)
            if "members" in after:
                images.set_members(self._conn, image["id"], has, shared or ())
            image = images.get_image(self._conn, image["id"])
        return {"changed": bool(after), "image": image, "diff": {"before": before, "after": after}, **facts}

    def _members_of(self, image: Mapping[str, Any]) -> list[str]:
        if self._params.get("members") is None or image.get("visibility") != "shared":
            return []
        return images.members(self._conn, str(image["id"]))

    def _predict(self, form: Form, own: Mapping[str, str], attributes: Mapping[str, Any]) -> dict[str, Any]:
        size = form.size
        if size is None:
            with closing(open_disk(form.path, format=form.kind)) as disk:
                size = predict_size(disk)
        after = {"name": self._params["name"], **attributes, **own}
        return {
            "changed": True,
            "image": None,
            "converted_to": form.converted_to,
            "bytes_sent": 0,
            "bytes_predicted": size,
            "sha512": None,
            "diff": {"before": {}, "after": after},
        }

    def _queued(self, found: list[dict[str, Any]], own: Mapping[str, str], attributes: Mapping[str, Any]) -> dict[str, Any]:
        """An image without data: the one that a cut upload left, or a new one."""
        later = ("protected",)  # a protected image could not be removed when its data is refused
        body = {k: v for k, v in {**attributes, **own, STATE: "copying"}.items() if k not in later}
        left = next((i for i in found if i["status"] in UNFINISHED and i.get(STATE) == "copying"), None)
        if left is None:
            return images.create(self._conn, {"name": self._params["name"], **body})
        left = images.wait_free(self._conn, left["id"], timeout=FREE_SECONDS, check=self._stop)
        if left["status"] != "queued":
            raise BadInput(
                f"Image {left['id']} was finished by somebody else meanwhile.",
                step="send the image",
                next_command="Run again: it will be compared.",
            )
        return images.change(self._conn, left, body)

    def _send(self, found: list[dict[str, Any]], form: Form, own: Mapping[str, str], attributes: Mapping[str, Any]) -> dict[str, Any]:
        def hook(done: int, total: int) -> None:
            self._progress("upload", done, total)

        method = self._method()
        image = self._queued(found, own, attributes)
        sender: Sender
        if form.converted_to:
            sender = Converted(form.path, form.kind, form.adapter or "lsilogic", hook)
        else:
            sender = AsIs(form.path, form.size or 0, hook)
        stores: list[str] = self._params.get("stores") or []
        try:
            store = stores[0] if stores and not method else None
            images.send(self._conn, image["id"], iter(sender), stage=bool(method), size=form.size, store=store)
        except FerryError as e:
            raise self._explained(e, image["id"]) from e
        if method:
            images.start_import(self._conn, image["id"], {"name": method}, stores)
            images.wait_active(self._conn, image["id"], timeout=self._params["timeout"], stores=stores, check=self._stop)
        elif len(stores) > 1:
            images.start_import(self._conn, image["id"], {"name": "copy-image"}, stores[1:])
            images.wait_active(self._conn, image["id"], timeout=self._params["timeout"], stores=stores, check=self._stop)
        image = images.get_image(self._conn, image["id"])
        self._verify(image, sender)
        done = {STATE: "complete", **({DIGEST: sender.digest} if sender.digest else {})}
        image = images.change(self._conn, image, {**done, **({"protected": True} if attributes.get("protected") else {})})
        if self._params.get("members"):
            images.set_members(self._conn, image["id"], (), self._params["members"])
        return {
            "changed": True,
            "image": images.get_image(self._conn, image["id"]),
            "converted_to": form.converted_to,
            "bytes_sent": sender.sent,
            "sha512": sender.sha512,
            "diff": {"before": {}, "after": {"name": self._params["name"], **attributes, **own}},
        }

    def _stop(self) -> None:
        """Lets the progress hook stop a wait."""
        self._progress("import", 0, 0)

    def _method(self) -> str | None:
        method: str | None = self._params.get("import_method")
        if method is None:
            return None
        known = images.methods(self._conn)
        if method not in known:
            raise BadInput(
                f"This Glance has no import method {method}.",
                step="read the import methods",
                said=", ".join(known) or "none at all",
                next_command="Leave import_method out: the image is then sent directly.",
            )
        return method

    def _verify(self, image: Mapping[str, Any], sender: Sender) -> None:
        if image.get("status") != "active":
            raise ServerError(
                f"Image {image['id']} is {image.get('status')} after the upload.", step="verify the image", left=f"image {image['id']}"
            )
        # An import plugin may have converted the image; then its hash is that of the new form.
        if image.get("os_hash_algo") == "sha512" and image.get("size") == sender.sent and image.get("os_hash_value") != sender.sha512:
            images.delete(self._conn, {"id": image["id"]})
            raise ServerError("Glance stored other bytes than were sent; the image was removed.", code="corrupt", step="verify the image")

    def _explained(self, error: FerryError, image_id: str) -> FerryError:
        """What to do about a failed upload, and what is left behind."""
        if error.code == "unsupported":
            images.delete(self._conn, {"id": image_id})
            error.add(next_command="See what ferry.vmware.vmdk_info says under glance; convert: auto sends a form that is accepted.")
        elif error.code in ("too_large", "quota"):
            error.add(
                left=f"image {image_id} without data; the next run uses it",
                next_command="Ask for a larger image_size_cap or image quota, or move the disk straight into a volume (ferry.vmware.vm_disk_copy).",
            )
        elif error.code == "not_found":
            error.add(left="nothing: somebody deleted the image meanwhile", next_command="Run again.")
        else:
            error.add(left=f"image {image_id} without data; the next run uses it")
        return error.add(step="send the image")

    def _web_download(self, found: list[dict[str, Any]]) -> dict[str, Any]:
        """Glance fetches the file itself; what it is, only Glance sees."""
        uri = str(self._params["src"])
        if not uri.startswith(("http://", "https://")):
            raise BadInput(
                "With import_method web-download, src is an http or https address that Glance can reach.", step="read the options"
            )
        disktype = self._params.get("disktype")
        adapter = self._params.get("adapter_type")
        form = Form(uri, "vmdk", 0, "vmdk", disktype, adapter, None, [])
        own = {
            **properties_for(form, hypervisor=self._params["hypervisor"], disktype=disktype, own=self._params.get("properties")),
            "ferry_uri": uri,
        }
        attributes = self._attributes("vmdk", 0)
        facts = {"converted_to": None, "bytes_sent": 0, "sha512": None}
        active = next((i for i in found if i["status"] == "active" and i.get("ferry_uri") == uri), None)
        if active is not None:
            return self._mend(active, own, attributes, {**facts, "sha512": active.get("os_hash_value")})
        if self._check:
            return {"changed": True, "image": None, **facts}
        self._method()
        image = self._queued(found, own, attributes)
        stores: list[str] = self._params.get("stores") or []
        images.start_import(self._conn, image["id"], {"name": "web-download", "uri": uri}, stores)
        try:
            image = images.wait_active(self._conn, image["id"], timeout=self._params["timeout"], stores=stores, check=self._stop)
        except ServerError as e:
            if e.code == "import_failed":
                images.delete(self._conn, {"id": image["id"]})
                e.left = None
            raise
        image = images.change(self._conn, image, {STATE: "complete", **({"protected": True} if attributes.get("protected") else {})})
        if self._params.get("members"):
            images.set_members(self._conn, image["id"], (), self._params["members"])
        return {"changed": True, "image": images.get_image(self._conn, image["id"]), **facts, "sha512": image.get("os_hash_value")}
