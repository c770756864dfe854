# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Put a disk into Glance as something that Glance takes and Nova boots: what glance_vmdk_upload does, free of Ansible."""

from __future__ import annotations

import hashlib
from contextlib import closing
from typing import Any, Callable, Mapping
from urllib.parse import urlsplit

from ..disk.vmdk.compress import checked_level
from ..disk.vmdk.sparse_stream import CREATE_TYPE, size_of
from ..disk.vmdk.stream_writer import predict_size
from ..errors import BadInput, Busy, FerryError, ServerError, bounded
from . import images
from .forms import Form, decide, properties_for
from .sending import AsIs, Converted, Sender, disk_digest, file_sha512
from .target import DIGEST, STATE
from .upload_errors import explained

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
#: Options that tell of the machine around the disk.
MACHINE = ("guest_id", "firmware", "secure_boot", "nic_type", "hardware", "disk_count")
#: SHA-512 of what was sent, kept where Glance's own hash is of something else: another algorithm, or a form it converted to.
SHA512 = "ferry_sha512"
#: Form in which a converted disk was sent (Form.wire).
FORM = "ferry_form"
#: SHA-256 of the address that an image was fetched from. Not the address: it may hold a signature.
URI = "ferry_uri"


class Upload:
    """One image to be as C(params), the options of glance_vmdk_upload, say."""

    def __init__(self, conn: Any, params: Mapping[str, Any], progress: Progress, *, check: bool = False) -> None:
        self._conn = conn
        self._params = params
        self._progress = progress
        self._check = check
        self._level = checked_level(params.get("compression_level"))

    def run(self) -> dict[str, Any]:
        """The module's result."""
        found = self._found()
        if self._params["state"] == "absent":
            return self._absent(found)
        if self._params.get("import_method") == "web-download":
            return self._web_download(found)
        form = self._form()
        own = self._properties(form)
        attributes = self._attributes(form.disk_format, -(-form.capacity // GIB))
        self._check_stores()
        verdict = {"bootable": form.bootable, "reasons": form.reasons, "converted_to": form.converted_to}
        active = [i for i in found if i["status"] == "active"]
        same, sha512 = self._same(active, form)
        if same is not None:
            return {**self._mend(same, own, attributes, {"bytes_sent": 0, "sha512": sha512}), **verdict}
        if active:
            raise BadInput(
                f"There is an image named {bounded(self._params['name'], 80)} with other content: {', '.join(i['id'] for i in active)}.",
                code="other_content",
                step="compare with the image",
                next_command="Remove it with state: absent, or choose another name.",
            )
        return {**(self._predict(form, own, attributes) if self._check else self._send(found, form, own, attributes)), **verdict}

    def _found(self) -> list[dict[str, Any]]:
        return images.find(self._conn, self._params["name"])

    def _form(self) -> Form:
        return decide(
            self._params["src"],
            hypervisor=self._params["hypervisor"],
            convert=self._params["convert"],
            adapter_type=self._params.get("adapter_type"),
            disktype=self._params.get("disktype"),
        )

    def _properties(self, form: Form) -> dict[str, str]:
        machine = {key: self._params.get(key) for key in MACHINE}
        return properties_for(form, hypervisor=self._params["hypervisor"], machine=machine, own=self._params.get("properties"))

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
        facts = {"converted_to": None, "bytes_sent": 0, "sha512": None}
        return {
            "changed": bool(found),
            "image": None,
            **facts,
            "diff": {"before": {"state": "present" if found else "absent"}, "after": {"state": "absent"}},
        }

    def _attributes(self, disk_format: str, min_disk: int) -> dict[str, Any]:
        given = {k: self._params[k] for k in MENDED if self._params.get(k) is not None}
        if self._params.get("tags") is not None:
            given["tags"] = sorted(self._params["tags"])
        if self._params.get("members") and given.setdefault("visibility", "shared") != "shared":
            raise BadInput("Only an image with visibility shared has members.", step="read the options")
        return {"min_disk": min_disk, **given, "disk_format": disk_format, "container_format": "bare"}

    def _same(self, active: list[dict[str, Any]], form: Form) -> tuple[dict[str, Any] | None, str | None]:
        """The active image with this content, and the SHA-512 of what was or would be sent."""

        def hook(done: int, total: int) -> None:
            self._progress("compare", done, total)

        if not active:
            return None, None
        sha512 = None
        if not form.converted_to:
            size = form.size or 0
            if any(size == i.get("size") or i.get(SHA512) for i in active):
                sha512 = file_sha512(form.path, hook, size)
                found = next((i for i in active if sha512 in (hash_of(i), i.get(SHA512))), None)
                if found is not None:
                    return found, sha512
        # qcow2 is sent as it is, and its disk is not read here.
        if form.kind != "qcow2" and any(i.get(DIGEST) for i in active):
            same = self._same_disk(active, form, hook)
            if same is not None:
                return same, same.get(SHA512) or hash_of(same)
        if not form.converted_to:
            return None, sha512
        # Whole, and killed before its digest was noted: what would be sent says whether it is the same.
        bare = [i for i in active if i.get(STATE) == "copying" and not i.get(DIGEST) and hash_of(i)]
        if not bare:
            return None, None
        for found in bare:
            sender = self._converted(form, found["id"], hook)
            sender.measure(hook)
            for _block in sender:
                pass
            if sender.sha512 == hash_of(found):
                if not self._check:
                    found = images.change(self._conn, found, {DIGEST: sender.digest, FORM: form.wire})
                return found, sender.sha512
        return None, None

    def _same_disk(self, active: list[dict[str, Any]], form: Form, hook: Callable[[int, int], None]) -> dict[str, Any] | None:
        """The image with this very disk, whatever its bytes; None where there is none.

        :raises BadInput: code C(other_form): those with this disk have a form that does not do.
        """
        digest = disk_digest(form.open, hook, form.threads)
        having = [i for i in active if i.get(DIGEST) == digest]
        good = [i for i in having if form.accepts(i.get(FORM), self._params["hypervisor"], self._params.get("disktype"))]
        if having and not good:
            wanted = form.wire or form.disktype or form.disk_format
            raise BadInput(
                f"Image {having[0]['id']} has this disk, but as {having[0].get(FORM)} where {wanted} is wanted.",
                code="other_form",
                step="compare with the image",
                next_command="Remove it with state: absent, or choose another name.",
            )
        # The one in the very form first.
        return min(good, key=lambda i: i.get(FORM) != form.wire, default=None)

    def _mend(
        self, image: dict[str, Any], own: Mapping[str, str], attributes: Mapping[str, Any], facts: Mapping[str, Any]
    ) -> dict[str, Any]:
        fixed = ("disk_format", "container_format")  # of an image that has data, these never change
        wanted: dict[str, Any] = {k: v for k, v in attributes.items() if k not in fixed}
        if self._params.get("min_disk") is None:
            wanted.pop("min_disk", None)
        wanted.update(own)
        if image.get(STATE) == "copying":
            wanted[STATE] = "complete"
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
        absent = [s for s in self._stores if s not in _stores_of(image)]
        if absent:
            before["stores"], after["stores"] = _stores_of(image), sorted({*_stores_of(image), *self._stores})
        if after and not self._check:
            image = images.change(self._conn, image, differing)
            if "members" in after:
                images.set_members(self._conn, image["id"], has, shared or ())
            if absent:
                self._copy_to(image["id"], absent)
            image = images.get_image(self._conn, image["id"])
        return {"changed": bool(after), "image": image, "diff": {"before": before, "after": after}, **facts}

    def _members_of(self, image: Mapping[str, Any]) -> list[str]:
        if self._params.get("members") is None or image.get("visibility") != "shared":
            return []
        return images.members(self._conn, str(image["id"]))

    def _predict(self, form: Form, own: Mapping[str, str], attributes: Mapping[str, Any]) -> dict[str, Any]:
        size = form.size
        if size is None:
            with closing(form.open()) as disk:
                size = size_of(disk) if form.converted_to == CREATE_TYPE else predict_size(disk, level=self._level)
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
        left = _left(found)
        if left is None:
            made = images.create(self._conn, {"name": self._params["name"], **body})
            # Two runs at once: both make one, both see the same oldest, and the other one goes.
            now = images.find(self._conn, self._params["name"])
            left = _left(now)
            known = {i["id"] for i in found}
            done = next((i for i in now if i["status"] == "active" and i["id"] not in known), None)
            if done is None and (left is None or left["id"] == made["id"]):
                return made
            images.delete(self._conn, made)
            left = done or left or made
        left = images.wait_free(self._conn, left["id"], timeout=FREE_SECONDS, check=self._stop)
        if left["status"] != "queued":
            raise Busy(
                f"Image {left['id']} was finished by somebody else meanwhile.",
                step="send the image",
                next_command="Run again: it will be compared.",
            )
        gone = {k: None for k in (*CONTROLLER_KEYS, DIGEST, SHA512, URI) if k in left and k not in body}
        return images.change(self._conn, left, {**body, **gone})

    def _send(self, found: list[dict[str, Any]], form: Form, own: Mapping[str, str], attributes: Mapping[str, Any]) -> dict[str, Any]:
        def hook(done: int, total: int) -> None:
            self._progress("upload", done, total)

        method = self._method()
        image = self._queued(found, own, attributes)
        sender: Sender
        size = form.size
        if form.wire:
            sender = converted = self._converted(form, image["id"], hook)
            size = converted.measure(lambda done, total: self._progress("measure", done, total))
        else:
            sender = AsIs(form.path, form.size or 0, hook)
        try:
            store = self._stores[0] if self._stores and not method else None
            images.send(self._conn, image["id"], iter(sender), stage=bool(method), size=size, store=store)
        except FerryError as e:
            raise explained(self._conn, e, image["id"]) from e
        if method:
            self._import(image["id"], {"name": method}, self._stores)
        elif len(self._stores) > 1:
            self._copy_to(image["id"], self._stores[1:])
        image = images.get_image(self._conn, image["id"])
        self._verify(image, sender, form)
        done: dict[str, Any] = {STATE: "complete"}
        if sender.digest:
            done.update({DIGEST: sender.digest, FORM: form.wire})
        if hash_of(image) != sender.sha512:
            done[SHA512] = sender.sha512
        return {
            "changed": True,
            "image": self._finish(image, done, attributes),
            "bytes_sent": sender.sent,
            "sha512": sender.sha512,
            "diff": {"before": {}, "after": {"name": self._params["name"], **attributes, **own}},
        }

    def _converted(self, form: Form, image_id: str, hook: Callable[[int, int], None]) -> Converted:
        more: dict[str, Any] = {"to": form.wire, "level": self._level, "threads": form.threads}
        return Converted(form.path, form.open, form.descriptor_adapter, hook, image_id=image_id, **more)

    def _finish(self, image: dict[str, Any], done: Mapping[str, Any], attributes: Mapping[str, Any]) -> dict[str, Any]:
        """What an image gets when its data is there: its state, members and protection; the image."""
        images.change(self._conn, image, {**done, **({"protected": True} if attributes.get("protected") else {})})
        if self._params.get("members"):
            images.set_members(self._conn, image["id"], (), self._params["members"])
        return images.get_image(self._conn, image["id"])

    # -- stores and imports ----------------------------------------------------------------------------------------

    @property
    def _stores(self) -> list[str]:
        return list(self._params.get("stores") or ())

    def _check_stores(self) -> None:
        if not self._stores:
            return
        known = images.known_stores(self._conn)
        unknown = [bounded(s, 60) for s in self._stores if s not in known]
        if unknown:
            raise BadInput(
                f"Glance has no store {', '.join(unknown)}.",
                step="read the stores",
                said=", ".join(known) or "it has one store, without a name",
                next_command="Name those it has, or leave stores out.",
            )

    def _import(self, image_id: str, method: Mapping[str, Any], stores: list[str]) -> dict[str, Any]:
        """Import and wait; the image. One that could not be imported is removed: Glance leaves it importing for ever."""
        try:
            images.start_import(self._conn, image_id, method, stores)
            return images.wait_active(self._conn, image_id, timeout=self._params["timeout"], stores=stores, check=self._stop)
        except ServerError as e:
            if e.code == "import_failed":
                images.delete(self._conn, {"id": image_id})
                e.left = None
                e.add(next_command="Mend what Glance says and run again.")
            raise

    def _copy_to(self, image_id: str, stores: list[str]) -> None:
        """Copy an image that is there to further stores."""
        try:
            images.start_import(self._conn, image_id, {"name": "copy-image"}, stores)
        except ServerError as e:
            if e.code == "forbidden":
                e.next_command = "Glance lets only administrators copy images (policy copy_image): let one of them run this."
            e.add(left=f"image {image_id}, which is in the other stores")
            raise
        images.wait_active(self._conn, image_id, timeout=self._params["timeout"], stores=stores, check=self._stop)

    def _stop(self) -> None:
        """Lets the progress hook stop a wait."""
        self._progress("import", 0, 0)

    def _method(self) -> str | None:
        method: str | None = self._params.get("import_method")
        if method is None and len(self._stores) < 2:
            return None
        known = images.methods(self._conn)
        if method is None:
            # An import puts the image into all stores at once, which its owner may do.
            return "glance-direct" if "glance-direct" in known else None
        if method not in known:
            raise BadInput(
                f"This Glance has no import method {method}.",
                step="read the import methods",
                said=", ".join(known) or "none at all",
                next_command="Leave import_method out: the image is then sent directly.",
            )
        return method

    def _verify(self, image: Mapping[str, Any], sender: Sender, form: Form) -> None:
        if image.get("status") != "active":
            raise ServerError(
                f"Image {image['id']} is {image.get('status')} after the upload.", step="verify the image", left=f"image {image['id']}"
            )
        if image.get("disk_format") != form.disk_format:
            return  # an import plugin has converted the image: hash and size are those of its new form
        if image.get("size") != sender.sent or (hash_of(image) or sender.sha512) != sender.sha512:
            images.delete(self._conn, {"id": image["id"]})
            raise ServerError(
                "Glance stored other bytes than were sent; the image was removed.",
                code="corrupt",
                step="verify the image",
                sent=sender.sent,
                stored=image.get("size"),
                next_command="Run again.",
            )

    def _web_download(self, found: list[dict[str, Any]]) -> dict[str, Any]:
        """Glance fetches the file itself; what it is, only Glance sees."""
        uri = str(self._params["src"])
        parts = urlsplit(uri)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise BadInput(
                "With import_method web-download, src is an http or https address that Glance can reach.", step="read the options"
            )
        if "@" in parts.netloc:
            raise BadInput("An address with a password is shown to whoever sees Glance's tasks: leave it out.", step="read the options")
        disk_format = {"qcow2": "qcow2", "raw": "raw"}.get(parts.path.rpartition(".")[2].lower(), "vmdk")
        form = Form(uri, disk_format, 0, disk_format, self._params.get("disktype"), self._params.get("adapter_type"), None)
        mark = hashlib.sha256(uri.encode()).hexdigest()
        own = {**self._properties(form), URI: mark}
        attributes = self._attributes(disk_format, 0)
        self._check_stores()
        facts = {"converted_to": None, "bytes_sent": 0, "sha512": None}
        active = next((i for i in found if i["status"] == "active" and i.get(URI) == mark), None)
        if active is not None:
            return self._mend(active, own, attributes, {**facts, "sha512": hash_of(active)})
        if self._check:
            return {"changed": True, "image": None, **facts, "diff": {"before": {}, "after": {"name": self._params["name"], **own}}}
        self._method()
        image = self._queued(found, own, attributes)
        image = self._import(image["id"], {"name": "web-download", "uri": uri}, self._stores)
        done: dict[str, Any] = {STATE: "complete"}
        if self._params.get("min_disk") is None and image.get("virtual_size"):
            done["min_disk"] = -(-int(image["virtual_size"]) // GIB)
        after = {"name": self._params["name"], **attributes, **own}
        image = self._finish(image, done, attributes)
        return {"changed": True, "image": image, **facts, "sha512": hash_of(image), "diff": {"before": {}, "after": after}}


def hash_of(image: Mapping[str, Any]) -> str | None:
    """SHA-512 of the image's data by Glance; None where it hashes by another algorithm."""
    return str(image["os_hash_value"]) if image.get("os_hash_algo") == "sha512" and image.get("os_hash_value") else None


def _stores_of(image: Mapping[str, Any]) -> list[str]:
    return sorted(s for s in str(image.get("stores") or "").split(",") if s)


def _left(found: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The oldest image that an upload of ours has not finished."""
    return next((i for i in found if i["status"] in UNFINISHED and i.get(STATE) == "copying"), None)
