# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""XML as vCloud Director writes it: elements with attributes, the two namespaces, references and links."""

from __future__ import annotations

from typing import Any, Mapping

# The same since 1.5 [D].
VCLOUD = "http://www.vmware.com/vcloud/v1.5"
VMEXT = "http://www.vmware.com/vcloud/extension/v1.5"
OVF = "http://schemas.dmtf.org/ovf/envelope/1"
RASD = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
VERSIONS = "http://www.vmware.com/vcloud/versions"
V = "application/vnd.vmware.vcloud."
A = "application/vnd.vmware.admin."
DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n'
NAMESPACES = {"xmlns": VCLOUD, "xmlns:vmext": VMEXT}

_ATTRIBUTE = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "\n": "&#10;", "\t": "&#9;", "\r": "&#13;"})
_TEXT = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


def text(value: Any) -> str:
    """A value as XML schema writes it, not escaped."""
    if value is True or value is False:
        return "true" if value else "false"
    return str(value)


def attributes(values: Mapping[str, Any]) -> str:
    return "".join(f' {k}="{text(v).translate(_ATTRIBUTE)}"' for k, v in values.items() if v is not None)


def element(name: str, values: Mapping[str, Any] | None = None, *children: str) -> str:
    """An element of children that are XML already; use leaf() for text."""
    inner = "".join(children)
    return f"<{name}{attributes(values or {})}>{inner}</{name}>" if inner else f"<{name}{attributes(values or {})}/>"


def leaf(name: str, value: Any, values: Mapping[str, Any] | None = None) -> str:
    return f"<{name}{attributes(values or {})}>{text(value).translate(_TEXT)}</{name}>"


def link(rel: str, href: str, media: str | None = None, name: str | None = None) -> str:
    return element("Link", {"rel": rel, "type": media, "name": name, "href": href})


def error(status: int, minor: str, message: str, root: bool = True) -> str:
    """<Error>; root: as a document, else inside a task."""
    values = {"xmlns": VCLOUD} if root else {}
    return element("Error", {**values, "majorErrorCode": status, "minorErrorCode": minor, "message": message})
