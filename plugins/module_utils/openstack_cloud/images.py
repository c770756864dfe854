# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Glance images: find, create, change, send their data, share, delete (Image service API v2)."""

from __future__ import annotations

import json
import time
from typing import Any, Iterable, Iterator, Mapping, Sequence

from ..errors import BadInput, Busy, FerryError, ServerError, bounded
from .client import SERVICES, call, explain, get, listing, of_status, said_in

PATCH_TYPE = "application/openstack-images-v2.1-json-patch"
#: A token that lives less than these seconds is renewed before an upload begins.
TOKEN_SECONDS = 1800
#: Property of an image that was itself what somebody wanted.
TARGET = "ferry_target"


def get_image(conn: Any, image_id: str) -> dict[str, Any]:
    """The image as Glance shows it now."""
    found: dict[str, Any] = get(conn, "image", f"/images/{image_id}", step="read the image")
    return found


def find(conn: Any, name: str) -> list[dict[str, Any]]:
    """The project's own images of this name (or the one with this id), the oldest first."""
    query = {"name": _quoted(name), "owner": conn.current_project_id}
    found = list(listing(conn, "image", "/images", "images", step="find the image", params=query))
    if not found:
        answer = call(conn, "image", "GET", f"/images/{segment(name)}", step="find the image", allow=(400, 404))
        found = [answer.json()] if answer.status_code == 200 and answer.json().get("owner") == conn.current_project_id else []
    return sorted(
        (i for i in found if i.get("status") not in ("deleted", "pending_delete")), key=lambda i: (str(i.get("created_at")), i["id"])
    )


def of_a_server(image: Mapping[str, Any]) -> bool:
    """Whether it is a snapshot or backup of a server. Nova hands it the properties of the image that the server was made from, with
    our marks among them (nova/compute/utils.py, initialize_instance_snapshot_metadata; block_device_mapping: of a server with volumes)."""
    return image.get("image_type") in ("snapshot", "backup") or any(image.get(k) for k in ("base_image_ref", "block_device_mapping"))


def asked_for(image: Mapping[str, Any]) -> bool:
    """Whether it was made to stay (vm_disk_copy with an image as its target), not on the way to a volume."""
    return image.get(TARGET) == "image"


def _quoted(name: str) -> str:
    """Glance takes a comma and a quote in a filter for its own unless the value is quoted."""
    return f'in:"{name}"' if "," in name or '"' in name else name


def segment(text: str) -> str:
    """C(text) as a part of a path: nothing in it leads elsewhere."""
    return "".join(c for c in text if c.isalnum() or c in "-_.")[:64] or "-"


def create(conn: Any, body: Mapping[str, Any]) -> dict[str, Any]:
    """A new image without data (status queued)."""
    made: dict[str, Any] = call(conn, "image", "POST", "/images", step="create the image", body=dict(body)).json()
    return made


def change(conn: Any, image: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Set attributes and properties that differ; the image. None removes a property."""
    steps = []
    for key, value in wanted.items():
        path = "/" + key.replace("~", "~0").replace("/", "~1")
        if value is None:
            if key in image:
                steps.append({"op": "remove", "path": path})
        elif key not in image:
            steps.append({"op": "add", "path": path, "value": value})
        elif image[key] != value:
            steps.append({"op": "replace", "path": path, "value": value})
    if not steps:
        return dict(image)
    changed: dict[str, Any] = call(
        conn,
        "image",
        "PATCH",
        f"/images/{image['id']}",
        step="change the image",
        data=json.dumps(steps),
        headers={"Content-Type": PATCH_TYPE},
    ).json()
    return changed


def renew(conn: Any, step: str) -> None:
    """Log in anew where the token ends soon: a body that is read while it is sent can be sent only once."""
    known = getattr(conn.session.auth, "get_access", None)
    try:
        if known is not None and known(conn.session).will_expire_soon(TOKEN_SECONDS) and conn.session.invalidate():
            conn.authorize()
    except Exception as e:  # noqa: BLE001 - see client.connect()
        raise explain(e, step, at=SERVICES["identity"]) from None


def send(
    conn: Any, image_id: str, data: Iterator[bytes], *, stage: bool = False, size: int | None = None, store: str | None = None
) -> None:
    """Send an image's data in one request.

    :param stage: to the staging area, for an import that follows.
    :param size: bytes, where they are known before.
    :raises ServerError: C(code) is unsupported (415), too_large (413), quota, conflict, not_found ...; unreachable for a cut.
    """
    headers = {"Content-Type": "application/octet-stream"}
    if size is not None:
        headers["x-openstack-image-size"] = str(size)
    if store and not stage:
        headers["x-image-meta-store"] = store
    step = "send the image"
    renew(conn, step)
    try:
        answer = conn.image.request(
            f"/images/{image_id}/{'stage' if stage else 'file'}",
            "PUT",
            raise_exc=False,
            redirect=False,
            data=data,
            headers=headers,
            connect_retries=0,
            status_code_retries=0,
            # After a 401, keystoneauth would send the rest of the data under a new token as if it were all of it.
            allow_reauth=False,
        )
    except Exception as e:  # the SDK, keystoneauth and requests have no common base class: explain() sorts them
        # The connection is closed at once, so that the server sees the upload's end and lets the image go.
        conn.session.session.close()
        if isinstance(e, FerryError):
            raise
        raise explain(e, step, at=SERVICES["image"]) from e
    if answer.status_code not in (200, 201, 202, 204):
        raise of_status(answer.status_code, said_in(answer), step, at=SERVICES["image"])


def data_of(conn: Any, image_id: str) -> Iterator[bytes]:
    """An image's data, in blocks of at most 1 MiB.

    :raises ServerError: Glance refuses, or the connection breaks on the way.
    """
    step = "read the image back"
    try:
        answer = conn.image.request(f"/images/{image_id}/file", "GET", raise_exc=False, redirect=False, stream=True)
        if answer.status_code != 200:
            raise of_status(answer.status_code, said_in(answer), step, at=SERVICES["image"])
        yield from answer.iter_content(1 << 20)
    except FerryError:
        raise
    except Exception as e:  # see send()
        raise explain(e, step, at=SERVICES["image"]) from e


def methods(conn: Any) -> list[str]:
    """Import methods that the server has."""
    body = get(conn, "image", "/info/import", step="read the import methods")
    return [str(m) for m in (body.get("import-methods") or {}).get("value") or ()]


def known_stores(conn: Any) -> list[str]:
    """Ids of the server's stores; none where it does not have several."""
    answer = call(conn, "image", "GET", "/info/stores", step="read the stores", allow=(404,))
    if answer.status_code != 200:
        return []
    return [str(row["id"]) for row in answer.json().get("stores") or ()]


def start_import(conn: Any, image_id: str, method: Mapping[str, Any], stores: Sequence[str] = ()) -> None:
    """Start an import; wait_active() tells its end."""
    body: dict[str, Any] = {"method": dict(method)}
    if stores:
        body["stores"] = list(stores)
        body["all_stores_must_succeed"] = True
    call(conn, "image", "POST", f"/images/{image_id}/import", step=f"import the image by {method['name']}", body=body)


def wait_active(
    conn: Any, image_id: str, *, timeout: float, stores: Sequence[str] = (), check: Any = None, pause: float = 1.0
) -> dict[str, Any]:
    """Wait until the image is active, and in all C(stores); the image. C(timeout), C(pause): seconds; C(check) may raise to stop."""
    end = time.monotonic() + timeout
    while True:
        image = get_image(conn, image_id)
        failed = [s for s in str(image.get("os_glance_failed_import") or "").split(",") if s]
        if failed or image["status"] in ("killed", "deleted"):
            raise ServerError(
                f"Glance could not import image {image_id}" + (f" into {', '.join(failed)}." if failed else "."),
                code="import_failed",
                step="import the image",
                said=_task_message(conn, image_id) or image["status"],
                left=f"image {image_id} with the status {image['status']}",
            )
        there = {s for s in str(image.get("stores") or "").split(",") if s}
        if image["status"] == "active" and not image.get("os_glance_importing_to_stores") and set(stores) <= (there or set(stores)):
            return image
        if check is not None:
            check()
        if time.monotonic() > end:
            raise ServerError(
                f"Image {image_id} has the status {image['status']} after {timeout:.0f} s.",
                code="timeout",
                step="import the image",
                left=f"image {image_id}; the next run goes on with it",
            )
        time.sleep(pause)


def _task_message(conn: Any, image_id: str) -> str | None:
    """Why the image's last task failed; older servers do not tell it."""
    answer = call(conn, "image", "GET", f"/images/{image_id}/tasks", step="read why the import failed", allow=(403, 404))
    if answer.status_code != 200:
        return None
    tasks = answer.json().get("tasks") or []
    return bounded(tasks[-1].get("message")) if tasks and tasks[-1].get("message") else None


def wait_free(conn: Any, image_id: str, *, timeout: float, check: Any = None, pause: float = 1.0) -> dict[str, Any]:
    """Wait until nobody sends data to the image; the image. A server notices after a while that a sender died.

    :raises Busy: after C(timeout) seconds somebody still does.
    """
    end = time.monotonic() + timeout
    while True:
        image = get_image(conn, image_id)
        if image["status"] not in ("saving", "uploading", "importing"):
            return image
        if check is not None:
            check()
        if time.monotonic() > end:
            raise Busy(
                f"Image {image_id} has the status {image['status']}: somebody sends its data.",
                step="send the image",
                next_command=f"Let that upload finish. If nobody sends it, delete image {image_id} and run again.",
            )
        time.sleep(pause)


def members(conn: Any, image_id: str) -> list[str]:
    """Projects that a shared image is shared with."""
    rows = get(conn, "image", f"/images/{image_id}/members", step="read the image's members")["members"]
    return sorted(str(r["member_id"]) for r in rows)


def set_members(conn: Any, image_id: str, before: Iterable[str], wanted: Iterable[str]) -> None:
    """Share with exactly these projects."""
    path = f"/images/{image_id}/members"
    for project in sorted(set(wanted) - set(before)):
        call(conn, "image", "POST", path, step="share the image", body={"member": project})
    for project in sorted(set(before) - set(wanted)):
        call(conn, "image", "DELETE", f"{path}/{segment(project)}", step="stop sharing the image", allow=(404,))


def delete(conn: Any, image: Mapping[str, Any]) -> None:
    """Delete an image; a protected one is refused with what to do."""
    if image.get("protected"):
        raise BadInput(
            f"Image {image['id']} is protected.",
            code="protected",
            step="delete the image",
            next_command="Run once with state: present and protected: false.",
        )
    call(conn, "image", "DELETE", f"/images/{image['id']}", step="delete the image", allow=(404,))
