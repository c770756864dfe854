# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The server's refusals as typed errors: major, minor, message and request id as data.

A body of an error is C(<Error majorErrorCode minorErrorCode message>) (vCloud API), or a JSON object with minorErrorCode and
message (cloudapi).
"""

from __future__ import annotations

import json
from typing import Any

from ..errors import FerryError, ServerError, bounded
from .document import Element, looks_like_html, name_of, parse, whole

#: What the log of the server's cells knows the request by.
REQUEST_ID = "X-VMWARE-VCLOUD-REQUEST-ID"
BUSY = "BUSY_ENTITY"
#: A full queue of operations is 400 as well, with this minor code.
QUEUE_FULL = "OPERATION_LIMITS_EXCEEDED"

#: Code of our error by HTTP status, where the minor code says nothing better.
_CODES = {401: "unauthorized", 403: "forbidden", 404: "not_found", 429: "throttled", 503: "unavailable"}
_MESSAGES = {
    "busy_entity": "The object is busy with another operation.",
    "queue_full": "The server has as many operations under way and waiting as it takes.",
    "forbidden": "The user may not do that.",
    "not_found": "There is no such thing, or the user may not see it.",
    "throttled": "The server asks to send fewer requests.",
    "unavailable": "The server is not available at the moment.",
    "unauthorized": "The session is not valid.",
}


def facts_of(element: Element) -> dict[str, Any]:
    """Major, minor and message of an C(Error) element."""
    vendor = element.get("vendorSpecificErrorCode")
    return {
        "major": whole(element.get("majorErrorCode")),
        "minor": bounded(element.get("minorErrorCode") or "", 120),
        "said": bounded(element.get("message") or ""),
        **({"vendor": bounded(vendor, 120)} if vendor else {}),
    }


def body_facts(body: bytes) -> dict[str, Any]:
    """What the body of an error says, empty where it is neither of the two forms."""
    if not body.strip():
        return {}
    if body.lstrip()[:1] == b"{":
        try:
            found = json.loads(body)
        except ValueError:
            return {}
        if not isinstance(found, dict):
            return {}
        return {"minor": bounded(found.get("minorErrorCode") or "", 120), "said": bounded(found.get("message") or "")}
    if looks_like_html(body):
        try:
            parse(body)
        except ServerError as e:
            return {"html": True, "said": e.said or ""}
    try:
        root = parse(body)
    except ServerError:
        return {}
    return facts_of(root) if name_of(root) == "Error" else {}


def refusal(status: int, body: bytes, request_id: str | None, *, step: str, vm: str | None = None, where: str = "") -> ServerError:
    """The error for an answer with the HTTP status C(status), 400 or above.

    C(code) is busy_entity, queue_full, unauthorized, forbidden, not_found, throttled, unavailable, html or refused; C(details) has status, major,
    minor and request_id.
    """
    facts = body_facts(body)
    minor = facts.get("minor") or ""
    if minor == BUSY:
        code = "busy_entity"
    elif minor == QUEUE_FULL:
        code = "queue_full"
    elif facts.get("html") and status not in (429, 503):
        code = "html"
    else:
        code = _CODES.get(status, "refused")
    if code == "html":
        message = (
            f"{where} answers HTTP {status} with a web page instead of the API's XML: a proxy, a portal or a load balancer is in between."
        )
    else:
        message = _MESSAGES.get(code, f"{where or 'The server'} refuses.")
    said = ": ".join(str(p) for p in (minor, facts.get("said")) if p)
    return ServerError(
        message,
        code=code,
        step=step,
        vm=vm,
        said=f"HTTP {status}: {said}" if said else f"HTTP {status}",
        status=status,
        major=facts.get("major") or status,
        minor=minor or None,
        request_id=bounded(request_id, 120) if request_id else None,
    )


def again_later(e: FerryError) -> bool:
    """Whether the server refused for the moment only: busy, too many requests, too many operations, not available."""
    return e.code in ("busy_entity", "queue_full", "throttled", "unavailable")
