# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reading the server's XML: bounded, without any DOCTYPE, and said clearly where it is no XML at all."""

from __future__ import annotations

import re
from typing import Iterator
from xml.etree import ElementTree

from ..errors import ServerError, bounded

#: The namespaces have been the same since API 1.5.
VCLOUD = "http://www.vmware.com/vcloud/v1.5"
VMEXT = "http://www.vmware.com/vcloud/extension/v1.5"

Element = ElementTree.Element

_DECLARED = re.compile(rb"\s*<\?xml[^>]{0,200}?encoding\s*=\s*[\"']([A-Za-z0-9._-]{1,40})[\"']")
#: In these a DOCTYPE is the same bytes as in ASCII, so that it can be looked for in the bytes.
_PLAIN = frozenset((b"utf-8", b"us-ascii", b"ascii", b"iso-8859-1", b"latin-1"))
_MARK = b"\xef\xbb\xbf"


def looks_like_html(body: bytes) -> bool:
    """Whether C(body) is a web page, as a proxy or a captive portal answers."""
    head = body[:1024].lstrip(_MARK + b" \t\r\n").lower()
    return head.startswith((b"<!doctype html", b"<html")) or b"<html" in head


def parse(body: bytes, *, step: str | None = None) -> Element:
    """The root element of C(body).

    :raises ServerError: code C(html) where it is a web page, C(protocol) where it is no XML, or XML with a DOCTYPE (entities
        that grow without end, or that name files, are declared there).
    """
    if looks_like_html(body):
        raise ServerError(
            "A web page was answered where the API should have: a proxy, a portal or a load balancer is in between.",
            code="html",
            step=step,
            said=_title(body),
        )
    declared = _DECLARED.match(body.removeprefix(_MARK))
    if body[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in body[:4] or (declared and declared[1].lower() not in _PLAIN):
        raise ServerError("The server answers with XML in another encoding than UTF-8.", code="protocol", step=step)
    if b"<!DOCTYPE" in body or b"<!ENTITY" in body:
        raise ServerError("The server answers with XML that has a DOCTYPE, which is refused.", code="protocol", step=step)
    try:
        return ElementTree.fromstring(body)
    except (ElementTree.ParseError, ValueError, RecursionError) as e:
        raise ServerError("The server answers something that is no XML.", code="protocol", step=step, said=f"{e}: {_start(body)}") from e


def _start(body: bytes) -> str:
    return bounded(body[:200], 120)


def _title(body: bytes) -> str:
    found = re.search(rb"<title[^>]{0,100}>([^<]{0,300})", body[:65536], re.IGNORECASE)
    return bounded(found[1].strip() if found else body[:200], 200)


def name_of(element: Element) -> str:
    """The local name of C(element)."""
    return element.tag.rpartition("}")[2]


def children(element: Element, name: str) -> Iterator[Element]:
    """The children called C(name), in whichever namespace: the same element stands in either of two."""
    end = "}" + name
    return (child for child in element if child.tag == name or child.tag.endswith(end))


def child(element: Element | None, *path: str) -> Element | None:
    """The first element at C(path) below C(element)."""
    for name in path:
        if element is None:
            return None
        element = next(children(element, name), None)
    return element


def text_of(element: Element | None, *path: str) -> str:
    """The text of the element at C(path), stripped; empty where there is none."""
    found = child(element, *path)
    return (found.text or "").strip() if found is not None else ""


def link(element: Element, rel: str, media: str | None = None) -> str | None:
    """The href of the link C(rel) of an entity, of the media type C(media) where one is given."""
    for found in children(element, "Link"):
        if found.get("rel") == rel and (media is None or found.get("type") == media):
            return found.get("href")
    return None


def truth(value: str | None) -> bool | None:
    """C(value) of an attribute or element of type boolean; None where it is not there."""
    return None if value is None or not value.strip() else value.strip().lower() in ("true", "1")


def whole(value: str | None) -> int | None:
    """C(value) as an integer (some figures are written as decimals); None where it is none, or has no sensible size."""
    if value is None or len(value) > 40:
        return None
    try:
        found = int(value) if value.lstrip("-").isdigit() else int(float(value))
    except (ValueError, OverflowError):
        return None
    return found if -(1 << 62) < found < 1 << 62 else None
