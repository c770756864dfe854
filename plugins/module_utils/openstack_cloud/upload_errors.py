# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What to do about an upload to Glance that failed, and what it leaves behind."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from ..errors import FerryError
from . import images


def explained(conn: Any, error: FerryError, image_id: str) -> FerryError:
    """C(error) with what to do. An image that Glance would never take data for again is removed."""
    said = (error.said or "").lower()
    if error.code == "unsupported":
        images.delete(conn, {"id": image_id})
        error.add(next_command="See what ferry.vmware.vmdk_info says under glance; convert: auto sends a form that is accepted.")
    elif error.code == "not_found" or (error.details.get("status") == 410 and "deleted" in said):
        error.code = "not_found"
        error.add(left="nothing: somebody deleted the image meanwhile", next_command="Run again.")
    elif error.code in ("too_large", "quota") and "media is full" in said:
        error.code = "store_full"
        error.add(next_command="Free space in Glance's store, or name another one in stores, and run again.")
    elif error.code in ("too_large", "quota"):
        error.add(
            next_command="Ask for a larger image_size_cap or image quota, or move the disk straight into a volume (ferry.vmware.vm_disk_copy)."
        )
    elif error.code == "unauthorized":
        error.add(next_command="The token ended during the upload: ask for tokens that live longer than it takes, and run again.")
    elif error.code == "conflict":
        error.add(left=f"image {image_id}, whose data somebody else sends", next_command="Let that upload finish, and run again.")
    elif error.code in ("server_failed", "unreachable"):
        error.add(next_command="Run again when Glance is well.")
    if (
        error.left is None
        and error.code in ("quota", "server_failed", "unauthorized", "too_large", "store_full")
        and _stuck(conn, image_id)
    ):
        error.add(left="nothing: Glance would have left the image saving for ever, it was removed")
    return error.add(left=f"image {image_id} without data; the next run uses it", step="send the image")


def _stuck(conn: Any, image_id: str) -> bool:
    """Remove our image where Glance has answered, and says nonetheless that somebody sends its data: it never takes that back.

    Seen where a quota is found exceeded at the end only, as with every upload whose size is not known before.
    """
    with suppress(FerryError):  # the upload's own error is the one to be told
        if images.get_image(conn, image_id)["status"] == "saving":
            images.delete(conn, {"id": image_id})
            return True
    return False
