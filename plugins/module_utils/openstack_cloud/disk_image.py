# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A disk that is read from elsewhere as an image: what vm_disk_copy sends, with Upload's rules for what is there already."""

from __future__ import annotations

import hashlib
from typing import Any, Callable, Mapping

from ..errors import Busy, bounded
from . import images
from .forms import Form
from .glance import FORM, GIB, SHA512, Progress, Upload, hash_of
from .target import DISK, SOURCE, STATE


class DiskUpload(Upload):
    """One disk as the image that C(params), the options of glance_vmdk_upload as far as they are known, say.

    :param form: how the disk is sent (forms.of_disk).
    :param marks: properties by which the image is found as this disk's.
    """

    def __init__(
        self, conn: Any, params: Mapping[str, Any], progress: Progress, form: Form, marks: Mapping[str, str], *, check: bool = False
    ) -> None:
        super().__init__(conn, {"state": "present", "convert": "auto", **params}, progress, check=check)
        self._disk = form
        self._marks = dict(marks)

    def found(self) -> list[dict[str, Any]]:
        """The images of this name, the oldest first.

        :raises Busy: code C(other_disk): one of them holds another VM's disk, or another one of this VM.
        """
        rows = images.find(self._conn, self._params["name"])
        for row in rows:
            if row.get(SOURCE) and any(row.get(key) != self._marks.get(key) for key in (SOURCE, DISK)):
                raise Busy(
                    f"The image {bounded(self._params['name'], 80)} holds another disk.",
                    code="other_disk",
                    step="look at the image",
                    said=f"{SOURCE}={bounded(row[SOURCE], 60)} {DISK}={bounded(row.get(DISK), 60)}",
                    next_command="Choose another name.",
                )
        return rows

    def held(self, key: str, value: str) -> dict[str, Any] | None:
        """The result of run() where an image that is whole has the property C(key) with C(value): no disk is read for it.

        What was altered beside the image's data is mended.
        """
        form = self._disk
        for image in self.found():
            whole = image["status"] == "active" and image.get(STATE) == "complete" and image.get(key) == value
            if whole and form.accepts(image.get(FORM), self._params["hypervisor"], None):
                attributes = self._attributes(form.disk_format, -(-form.capacity // GIB))
                facts = {"bytes_sent": 0, "sha512": image.get(SHA512) or hash_of(image)}
                return self._mend(image, self._properties(form), attributes, facts)
        return None

    def _found(self) -> list[dict[str, Any]]:
        return self.found()

    def _form(self) -> Form:
        return self._disk

    def _properties(self, form: Form) -> dict[str, str]:
        return {**super()._properties(form), **self._marks}


def data_sha512(conn: Any, image_id: str, progress: Callable[[int, int], None], size: int) -> str:
    """SHA-512, in hexadecimal, of the image's data as Glance gives it back.

    :param progress: called with (bytes so far, C(size)); what it raises ends the reading.
    :raises ServerError: Glance does not give it.
    """
    total = hashlib.sha512()
    done = 0
    for block in images.data_of(conn, image_id):
        total.update(block)
        done += len(block)
        progress(done, size)
    return total.hexdigest()
