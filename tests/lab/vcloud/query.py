# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""GET /api/query: the list of queries, and typed queries in pages (vCloud API Programming Guide, "About Queries")."""

from __future__ import annotations

import functools
import random
from typing import Any, Callable
from urllib.parse import quote, urlencode

from . import fiql, records
from .engine import Engine
from .errors import bad, forbidden
from .records import Path, RecordType, Version
from .sessions import Session
from .switches import Switches
from .world import World
from .xmlout import DECLARATION, VCLOUD, V, element, link

FORMATS = ("records", "references", "idrecords")
_KNOWN = {
    "type", "page", "pageSize", "sortAsc", "sortDesc", "format", "fields", "filter", "filterEncoded", "offset", "links", "",
}  # fmt: skip
_CACHED = 64
_MOST_KEPT = 32
#: Their progress, or whether they are busy, changes by itself.
_MOVING = ("task", "adminTask", "adminShadowVM")


class Queries:
    def __init__(self, world: World, engine: Engine, switches: Switches, base: Callable[[], str]) -> None:
        self._world = world
        self._engine = engine
        self._switches = switches
        self._base = base
        self._types = records.types(engine)
        self._random = random.Random(86)
        self._cache: dict[Any, list[Any]] = {}
        self._kept: dict[Any, dict[int, tuple[Any, str]]] = {}
        self._kept_of: Any = None

    def answer(self, session: Session, version: Version, given: dict[str, str]) -> tuple[str, str]:
        """The document and its media type, for the parameters of a request."""
        if "type" not in given:
            return self._list(session), f"{V}query.queryList+xml"
        kind = self._types.get(given["type"])
        if kind is None or not any(since <= version for since, _value in kind.attributes.values()):
            raise bad(f"Unknown query type: {given['type']}")
        if kind.system_only and not session.system:
            raise forbidden()
        return self._page(kind, session, version, given), f"{V}query.{self._format(given)}+xml"

    def _list(self, session: Session) -> str:
        """QueryList: a link for each type and format, by name (pyvcloud looks for name and type [C])."""
        links = [
            link("down", f"{self._base()}/api/query?type={t.name}&format={f}", f"{V}query.{f}+xml", t.name)
            for t in self._types.values()
            if session.system or not t.system_only
            for f in FORMATS
        ]
        values = {"xmlns": VCLOUD, "type": f"{V}query.queryList+xml", "href": f"{self._base()}/api/query"}
        return DECLARATION + element("QueryList", values, *links)

    @staticmethod
    def _format(given: dict[str, str]) -> str:
        found = given.get("format", "records")
        if found not in FORMATS:
            raise bad(f"Unknown format: {found}")
        return found

    @staticmethod
    def _number(given: dict[str, str], name: str, default: int, least: int) -> int:
        text = given.get(name, str(default))
        if not text.isdecimal() or len(text) > 9 or int(text) < least:
            raise bad(f"{name} must be a number of at least {least}: {text}")
        return int(text)

    def _page(self, kind: RecordType, session: Session, version: Version, given: dict[str, str]) -> str:
        for name in given:
            if name not in _KNOWN:
                raise bad(f"Unknown query parameter: {name}")
        page = self._number(given, "page", 1, 1)
        size = self._number(given, "pageSize", 25, 1)
        most = self._switches.page_size_max
        if size > most and self._switches.page_size_over != "allow":
            if self._switches.page_size_over == "refuse":
                raise bad(f"pageSize must be at most {most}: {size}")
            size = most
        rows = self._rows(kind, session, version, given)
        start = self._number(given, "offset", 0, 0) if "offset" in given else (page - 1) * size
        last = max(1, -(-len(rows) // size))
        if page > last and self._switches.page_past_end == "refuse":
            raise bad(f"page must be at most {last}: {page}")
        form = self._format(given)
        values = {
            "xmlns": VCLOUD,
            "total": len(rows),
            "pageSize": size,
            "page": page,
            "name": kind.name,
            "type": f"{V}query.{form}+xml",
            "href": self._href(given, page, size),
        }
        names = self._fields(kind, version, given)
        out = [self._page_links(given, page, size, last, form)]
        out += self._written(kind, rows[start : start + size], form, names, version)
        root = f"{kind.reference}References" if form == "references" else "QueryResultRecords"
        return DECLARATION + element(root, values, *out)

    def _href(self, given: dict[str, str], page: int, size: int) -> str:
        """The request's own parameters with another page; what was encoded stays encoded as it was."""
        values = {k: v for k, v in given.items() if k and k != "offset"}
        values.update(page=str(page), pageSize=str(size))
        values.setdefault("format", "records")
        return f"{self._base()}/api/query?{urlencode(values, quote_via=quote, safe='*,')}"

    def _page_links(self, given: dict[str, str], page: int, size: int, last: int, form: str) -> str:
        """firstPage, previousPage, nextPage, lastPage [D], each where it leads somewhere else."""
        rels: dict[str, int] = {}
        if page > 1:
            rels["firstPage"] = 1
            rels["previousPage"] = page - 1
        if page < last:
            rels["nextPage"] = page + 1
            rels["lastPage"] = last
        return "".join(link(rel, self._href(given, n, size), f"{V}query.{form}+xml") for rel, n in rels.items())

    def _fields(self, kind: RecordType, version: Version, given: dict[str, str]) -> list[str]:
        known = [n for n, (since, _value) in kind.attributes.items() if since <= version]
        if "fields" not in given:
            return known
        wanted = [f.strip() for f in given["fields"].split(",") if f.strip()]
        for name in wanted:
            if name not in known and name not in ("href", "id", "type"):
                raise bad(f"Unknown field: {name}")
        return [n for n in known if n in wanted]

    def _written(self, kind: RecordType, rows: list[Any], form: str, names: list[str], version: Version) -> list[str]:
        """The rows as XML, kept until something changes: a product answers from a database, not from Python's loops."""
        if kind.name in _MOVING:
            return [self._row(kind, row, form, names, version) for row in rows]
        if self._kept_of != self._world.generation or len(self._kept) > _MOST_KEPT:
            self._kept, self._kept_of = {}, self._world.generation
        key = (kind.name, form, tuple(names), version, self._base())
        known = self._kept.setdefault(key, {})
        out = []
        for row in rows:
            if id(row) not in known:
                # the row is kept beside its text, so that its id stays its own
                known[id(row)] = (row, self._row(kind, row, form, names, version))
            out.append(known[id(row)][1])
        return out

    def _row(self, kind: RecordType, row: Any, form: str, names: list[str], version: Version) -> str:
        ref, base = kind.ref(row), self._base()
        if form == "references":
            values = {"type": kind.media, "name": kind.attributes["name"][1](row), "id": ref.urn, "href": base + ref.path}
            return element(f"{kind.reference}Reference", values)
        values = {}
        for name in names:
            value = kind.attributes[name][1](row)
            if isinstance(value, Path):
                value = value.urn if form == "idrecords" else base + value.path
            values[name] = value
        # The href is there whatever the fields: the seed's fields=name,datastoreName shows it.
        values["id" if form == "idrecords" else "href"] = ref.urn if form == "idrecords" else base + ref.path
        return element(kind.record, values)

    def _rows(self, kind: RecordType, session: Session, version: Version, given: dict[str, str]) -> list[Any]:
        """All rows of a query, in order. Kept until something changes: the next page asks for the same."""
        sort = [(n, s) for s in ("sortAsc", "sortDesc") for n in [given.get(s)] if n]
        encoded = given.get("filterEncoded", "").lower() == "true"
        key = (kind.name, session.org_id, version, given.get("filter"), encoded, tuple(sort), self._world.generation)
        shuffled = self._switches.order == "shuffled"
        if key in self._cache and not shuffled and kind.name not in _MOVING:
            return self._cache[key]
        rows = list(kind.objects(self._world, self._engine, session))
        names = {n for n, (since, _value) in kind.attributes.items() if since <= version} | {"href", "id"}

        def getter(row: Any) -> Callable[[str], Any]:
            def get(name: str) -> Any:
                if name in ("href", "id"):
                    ref = kind.ref(row)
                    return self._base() + ref.path if name == "href" else ref.urn
                value = kind.attributes[name][1](row)
                return self._base() + value.path if isinstance(value, Path) else value

            return get

        if given.get("filter"):
            test = fiql.parse(given["filter"], fiql.Rules.of(version, encoded), names)
            rows = [r for r in rows if test(getter(r))]
        if shuffled:
            self._random.shuffle(rows)
        for name, direction in sort:
            if name not in names:
                raise bad(f"Unknown field to sort by: {name}")
            rows.sort(key=functools.partial(self._sort_key, getter, name), reverse=direction == "sortDesc")
        if len(self._cache) >= _CACHED:
            self._cache.clear()
        self._cache[key] = rows
        return rows

    @staticmethod
    def _sort_key(getter: Callable[[Any], Callable[[str], Any]], name: str, row: Any) -> tuple[int, Any]:
        return _sortable(getter(row)(name))


def _sortable(value: Any) -> tuple[int, Any]:
    if value is None:
        return 0, ""
    return (1, value) if isinstance(value, int) else (2, str(value))
