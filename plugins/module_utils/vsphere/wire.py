# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reading plain properties straight from vSphere's SOAP, for where the time of importing pyVmomi counts: the inventory.

Strings, numbers, truth values, enumerations and references say their type in the answer. Data objects do not (what is
within is typed by the schema alone), so for these NeedsTypes is raised, and the caller asks again through pyVmomi.
Vendor reference: vSphere Web Services API, PropertyCollector; SOAP 1.1; XML Schema Part 2 (xsi:type).
"""

from __future__ import annotations

import http.client
import zlib
from dataclasses import dataclass
from typing import Any, Iterable, Iterator, Mapping, Sequence
from xml.etree import ElementTree

from .. import trust
from ..errors import ServerError, bounded
from .client import (
    CALL_TIMEOUT,
    CONNECT_TIMEOUT,
    LOCALE,
    MAX_VERSIONS_BYTES,
    VERSIONS_PATH,
    Endpoint,
    login_refused,
    newest_version,
    not_vsphere,
    transport_error,
)
from .properties import PAGE, Row, no_such_property

#: Bytes of one answer that are believed: a page of 500 objects with a handful of leaves has less than 1 MiB.
MAX_ANSWER = 256 << 20

_XSI_TYPE = "{http://www.w3.org/2001/XMLSchema-instance}type"
_ENVELOPE = (
    '<?xml version="1.0" encoding="UTF-8"?><soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" '
    'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><soapenv:Body>{}</soapenv:Body></soapenv:Envelope>'
)
_INTEGERS = frozenset(("int", "long", "short", "byte"))
_ARRAYS = {
    "ArrayOfString": "string",
    "ArrayOfInt": "int",
    "ArrayOfLong": "long",
    "ArrayOfShort": "short",
    "ArrayOfBoolean": "boolean",
    "ArrayOfDouble": "double",
    "ArrayOfManagedObjectReference": "ManagedObjectReference",
}


class NeedsTypes(Exception):
    """A property is a data object: what it is made of can only be read with the API's schema."""


@dataclass(frozen=True)
class Ref:
    """A reference to a managed object. It is asked for by the names that pyVmomi's have."""

    _wsdlName: str
    _moId: str


class Attribute:
    """A custom attribute's value (CustomFieldStringValue), by the names that pyVmomi has for it. No dataclass: making one takes longer
    than reading all the attributes of a site that has none."""

    __slots__ = ("key", "value")

    def __init__(self, key: int, value: str) -> None:
        self.key, self.value = key, value


class AttributeDef:
    """The definition of one (CustomFieldDef). C(managedObjectType): None for one that is for all types."""

    __slots__ = ("key", "managedObjectType", "name")

    def __init__(self, key: int, name: str, managed_type: str | None) -> None:
        self.key, self.name, self.managedObjectType = key, name, managed_type


def escape(text: str) -> str:
    """C(text) as character data of XML, good between double quotes as well (xml.sax.saxutils imports urllib for that)."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")


def _name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _children(element: ElementTree.Element, name: str) -> Iterator[ElementTree.Element]:
    return (child for child in element if _name(child) == name)


def _child(element: ElementTree.Element, name: str) -> ElementTree.Element | None:
    return next(_children(element, name), None)


def _text(element: ElementTree.Element | None) -> str:
    return (element.text or "") if element is not None else ""


def value_of(element: ElementTree.Element, kind: str | None = None) -> Any:
    """The value of C(element), by its xsi:type unless C(kind) says what it is. Pure.

    :raises NeedsTypes: it is a data object.
    """
    told = element.get(_XSI_TYPE)
    if told:
        kind = told.rpartition(":")[2]
    kind = kind or ""
    text = element.text or ""
    if kind == "string":
        return text
    if kind in _INTEGERS:
        return int(text)
    if kind == "boolean":
        return text in ("true", "1")
    if kind == "ManagedObjectReference" or element.get("type"):  # only references have an attribute "type" of their own
        return Ref(element.get("type") or "", text)
    if kind in ("double", "float"):
        return float(text)
    if kind == "dateTime":
        return text[:-1] + "+00:00" if text.endswith("Z") else text
    if kind in _ARRAYS:
        return [value_of(child, _ARRAYS[kind]) for child in element]
    if kind and not kind.startswith("ArrayOf") and len(element) == 0 and text.strip():
        return text  # an enumeration
    # two data objects whose schema is small enough to stand here
    if kind == "ArrayOfCustomFieldValue":
        return [Attribute(int(_text(_child(v, "key"))), _text(_child(v, "value"))) for v in element]
    if kind == "ArrayOfCustomFieldDef":
        return [
            AttributeDef(int(_text(_child(d, "key"))), _text(_child(d, "name")), _text(_child(d, "managedObjectType")) or None)
            for d in element
        ]
    raise NeedsTypes(kind)


def rows_of(result: ElementTree.Element) -> Iterator[Row]:
    """The rows of a RetrieveResult. Pure."""
    # Tens of thousands of elements: told apart by whole tags, in the namespace of the answer, in one pass.
    space = result.tag.rpartition("}")[0]
    space = space and space + "}"
    objects, obj_tag, prop_set, name_tag, val_tag = (space + name for name in ("objects", "obj", "propSet", "name", "val"))
    for content in result:
        if content.tag != objects:
            continue
        obj, props = None, {}
        for child in content:
            if child.tag == prop_set:
                name, value = "", None
                for part in child:
                    if part.tag == name_tag:
                        name = part.text or ""
                    elif part.tag == val_tag:
                        value = part
                if value is not None:
                    props[name] = value_of(value)
            elif child.tag == obj_tag:
                obj = child
        if obj is not None:
            yield Row(obj.get("type") or "", _text(obj), props)


def _ref(name: str, ref: Ref) -> str:
    return f'<{name} type="{escape(ref._wsdlName)}">{escape(ref._moId)}</{name}>'


def filter_spec(paths: Mapping[str, Sequence[str]], view: Ref, also: Iterable[Ref] = ()) -> str:
    """The specSet of RetrievePropertiesEx for all objects of a view, and for the objects C(also). Pure."""
    sets = "".join(
        f"<propSet><type>{escape(kind)}</type><all>false</all>{''.join(f'<pathSet>{escape(p)}</pathSet>' for p in leaves)}</propSet>"
        for kind, leaves in paths.items()
    )
    along = '<selectSet xsi:type="TraversalSpec"><name>view</name><type>ContainerView</type><path>view</path><skip>false</skip></selectSet>'
    beside = "".join(f"<objectSet>{_ref('obj', ref)}</objectSet>" for ref in also)
    return f"<specSet>{sets}<objectSet>{_ref('obj', view)}<skip>true</skip>{along}</objectSet>{beside}</specSet>"


class Wire:
    """A session that reads views. For one thread."""

    def __init__(self, where: Endpoint, timeout: float = CALL_TIMEOUT) -> None:
        self.where = where
        self._cookie = ""
        self._logged_in = False
        self._connection = http.client.HTTPSConnection(
            where.host,
            where.port,
            timeout=min(CONNECT_TIMEOUT, timeout),
            context=trust.context(where.validate_certs, where.ca_path, "connect to vCenter"),
        )
        try:
            self._action = f'"urn:vim25/{self._negotiate()}"'
            if self._connection.sock is not None:
                self._connection.sock.settimeout(timeout)
            self._connection.timeout = timeout
            self._log_in()
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            if self._logged_in:
                self._call("Logout", self._refs["sessionManager"])
        except ServerError:
            pass  # the session expires by itself
        finally:
            self._connection.close()

    def _exchange(self, method: str, path: str, body: bytes | None, headers: dict[str, str], step: str, limit: int) -> tuple[int, bytes]:
        try:
            self._connection.request(method, path, body, headers)
            answer = self._connection.getresponse()
            cookie = answer.getheader("Set-Cookie")
            if cookie:
                self._cookie = cookie.split(";", 1)[0].strip()
            data = answer.read(limit + 1)
            if len(data) <= limit and answer.getheader("Content-Encoding") == "gzip":
                data = zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(data, limit + 1)
        except (OSError, http.client.HTTPException) as e:
            raise transport_error(e, self.where, step) from e
        except zlib.error as e:
            raise ServerError(f"{self.where.netloc} answered with damaged data.", code="protocol", step=step, said=e) from e
        if len(data) > limit:
            raise ServerError(f"{self.where.netloc} answered with more than {limit} bytes.", code="protocol", step=step)
        return answer.status, data

    def _negotiate(self) -> str:
        status, document = self._exchange("GET", VERSIONS_PATH, None, {}, "connect to vCenter", MAX_VERSIONS_BYTES)
        version = newest_version(document) if status == 200 else None
        if version is None:
            raise not_vsphere(self.where, status)
        return version

    def _call(self, method: str, this: Ref, inner: str = "", step: str = "read the inventory") -> ElementTree.Element:
        """The answer's element; a fault becomes ServerError with details.fault."""
        body = _ENVELOPE.format(f'<{method} xmlns="urn:vim25">{_ref("_this", this)}{inner}</{method}>').encode()
        headers = {"Content-Type": "text/xml; charset=utf-8", "SOAPAction": self._action, "Accept-Encoding": "gzip", "Cookie": self._cookie}
        status, data = self._exchange("POST", "/sdk", body, headers, step, MAX_ANSWER)
        if status not in (200, 500) or b"<!DOCTYPE" in data[:4096]:
            raise ServerError(f"{self.where.netloc} answers with an HTTP error.", code="unreachable", step=step, said=f"HTTP {status}")
        try:
            found = next(iter(ElementTree.fromstring(data)[-1]))
        except (ElementTree.ParseError, IndexError, StopIteration) as e:
            raise ServerError(f"{self.where.netloc} answered something that is no SOAP.", code="protocol", step=step, said=e) from e
        if _name(found) == "Fault":
            detail = next(iter(found.find("detail") or ()), None)
            kind = (detail.get(_XSI_TYPE) or "").rpartition(":")[2] if detail is not None else ""
            raise ServerError(
                f"{self.where.netloc} refused.",
                code="fault",
                step=step,
                said=f"{kind}: {_text(found.find('faultstring'))}",
                fault=kind,
                name=bounded(_text(_child(detail, "name")), 200) if detail is not None else "",
            )
        return found

    def _log_in(self) -> None:
        content = _child(
            self._call("RetrieveServiceContent", Ref("ServiceInstance", "ServiceInstance"), step="connect to vCenter"), "returnval"
        )
        self._refs = {_name(e): Ref(e.get("type") or "", _text(e)) for e in (content if content is not None else ()) if e.get("type")}
        if not {"sessionManager", "propertyCollector", "viewManager", "rootFolder"} <= self._refs.keys():
            raise ServerError(f"{self.where.netloc} answered without its managers.", code="protocol", step="connect to vCenter")
        who, word = escape(self.where.username), escape(self.where.password)
        inner = f"<userName>{who}</userName><password>{word}</password><locale>{LOCALE}</locale>"
        try:
            self._call("Login", self._refs["sessionManager"], inner, step="log in to vCenter")
        except ServerError as e:
            if e.details.get("fault") == "InvalidLogin":
                raise login_refused(self.where, e.said) from None
            raise
        self._logged_in = True

    def manager(self, name: str) -> Ref | None:
        """The manager that ServiceContent calls C(name); an ESXi host does not have them all."""
        return self._refs.get(name)

    def of_view(self, paths: Mapping[str, Sequence[str]], page: int = PAGE, also: Mapping[Ref, Sequence[str]] | None = None) -> list[Row]:
        """The properties C(paths) (leaves by type) of every object of those types; see properties.of_view.

        :param also: properties of single objects, in the same question; none of a type that is in C(paths).
        :raises NeedsTypes: one of them is a data object.
        """
        also = also or {}
        types = "".join(f"<type>{escape(kind)}</type>" for kind in paths)
        inner = f"{_ref('container', self._refs['rootFolder'])}{types}<recursive>true</recursive>"
        made = _child(self._call("CreateContainerView", self._refs["viewManager"], inner), "returnval")
        view = Ref("ContainerView", _text(made))
        collector = self._refs["propertyCollector"]
        rows: list[Row] = []
        try:
            asked = {**paths, **{ref._wsdlName: leaves for ref, leaves in also.items()}}
            spec = f"{filter_spec(asked, view, also)}<options><maxObjects>{page}</maxObjects></options>"
            result = _child(self._call("RetrievePropertiesEx", collector, spec), "returnval")
            while result is not None:
                rows.extend(rows_of(result))
                token = _text(_child(result, "token"))
                if not token:
                    break
                result = _child(self._call("ContinueRetrievePropertiesEx", collector, f"<token>{escape(token)}</token>"), "returnval")
        except ServerError as e:
            if e.details.get("fault") == "InvalidProperty":
                raise no_such_property(str(e.details.get("name", "")), paths, e.step or "", e.said) from e
            raise
        # the view ends with the session
        return rows
