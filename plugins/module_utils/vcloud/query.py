# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The query service: filters in FIQL, and all pages of an answer.

Pages are those that the server's C(nextPage) links lead to, never computed ones: a server may clamp the page size. What a link
will be can often be told from the one before, so pages are asked for ahead; one that the link then does not name is thrown away.
"""

from __future__ import annotations

import re
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Callable, Sequence
from urllib.parse import parse_qsl, quote, urlsplit

from ..errors import BadInput, ServerError
from .client import Client
from .document import Element, link, name_of, whole
from .eras import Era
from .transport import local_path

#: The most that the server gives in one page.
PAGE = 128
#: Pages asked for at once.
AHEAD = 12
#: A list that changes while it is read is read so many times.
READS = 4
#: So many records more than the total are no list that grows while it is read.
ENDLESS = 10_000

Record = dict[str, str]


# -- filters ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fiql:
    """A filter; C(text) is FIQL in the escaping of one era, not yet percent-encoded for the URL."""

    text: str


def _value(text: str, era: Era) -> str:
    if era.encoded_twice:
        return quote(text, safe="*")
    return re.sub(r"([(),;\\])", r"\\\1", text)


def equal(attribute: str, value: str, era: Era) -> Fiql:
    """C(attribute==value); an asterisk in C(value) stands for anything. From 5.1 on case matters where there is none."""
    return Fiql(f"{attribute}=={_value(value, era)}")


def any_of(attribute: str, values: Sequence[str], era: Era) -> Fiql:
    """C(attribute) is one of C(values)."""
    parts = [equal(attribute, v, era).text for v in values]
    return Fiql(parts[0] if len(parts) == 1 else f"({','.join(parts)})")


def compare(attribute: str, operator: str, value: str, era: Era) -> Fiql:
    """C(attribute =ge= value) and its like; operators are gt, ge, lt, le.

    :raises BadInput: API 1.5 has none of them.
    """
    if not era.relational:
        raise BadInput("A filter with gt, ge, lt or le needs API 5.1 or later.", step="query")
    return Fiql(f"{attribute}={operator}={_value(value, era)}")


def raw(text: str, era: Era) -> Fiql:
    """A filter as the user wrote it, in FIQL, not percent-encoded."""
    return Fiql("(" + (text.replace("%", "%25") if era.encoded_twice else text) + ")")


def every(*filters: Fiql | None) -> Fiql | None:
    """All of C(filters) that are one."""
    parts = [f.text for f in filters if f is not None]
    return Fiql(";".join(parts)) if parts else None


def query_path(
    kind: str,
    era: Era,
    *,
    fields: Sequence[str] = (),
    where: Fiql | None = None,
    page_size: int = PAGE,
    sort: str | None = "name",
) -> str:
    """The path of the first page of a query for records of the type C(kind). Pure.

    :param fields: the attributes to give; all without any. The href is always given.
    :param sort: pages of an answer without an order may overlap.
    """
    words = [f"type={kind}", "format=records", "page=1", f"pageSize={page_size}"]
    if sort:
        words.append(f"sortAsc={sort}")
    if fields:
        words.append(f"fields={','.join(fields)}")
    if where is not None:
        if era.encoded_twice:
            words.append("filterEncoded=true")
        words.append("filter=" + quote(where.text, safe="=;,()*!:/-_."))
    return "/api/query?" + "&".join(words)


# -- pages ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Page:
    """One page. C(following): the path of the next one, as the server's link has it."""

    records: list[Record]
    total: int | None
    size: int | None
    number: int | None
    following: str | None


def page_of(root: Element) -> Page:
    """The page in the answer to a query.

    :raises ServerError: code C(protocol): that is none.
    """
    if not name_of(root).startswith("QueryResult"):
        raise ServerError("The server answers a query with something else.", code="protocol", step="query", said=name_of(root))
    records = [e.attrib for e in root if e.tag.endswith("Record")]
    following = link(root, "nextPage")
    return Page(
        records,
        whole(root.get("total")),
        whole(root.get("pageSize")),
        whole(root.get("page")),
        local_path(following) if following else None,
    )


def _same(one: str, other: str) -> bool:
    a, b = urlsplit(one), urlsplit(other)
    return a.path == b.path and sorted(parse_qsl(a.query, True)) == sorted(parse_qsl(b.query, True))


def predictor(page: Page) -> Callable[[int], str] | None:
    """What the link to the page C(n) will look like, told from the link of the first page; None where that tells nothing."""
    found = re.search(r"(?<=[?&])page=2(?=&|$)", page.following) if page.following is not None and page.number == 1 else None
    if page.following is None or found is None:
        return None
    head, tail = page.following[: found.start()], page.following[found.end() :]
    return lambda n: f"{head}page={n}{tail}"


class _Ahead:
    """Fetches pages, some ahead."""

    def __init__(self, fetch: Callable[[str], Page], first: Page, pool: ThreadPoolExecutor | None) -> None:
        self._fetch = fetch
        self._pool = pool
        self._guess = predictor(first) if pool is not None else None
        self._waiting: dict[int, tuple[str, Future[Page]]] = {}
        size = first.size or len(first.records) or 1
        self._last = -(-(first.total or 0) // size)

    def get(self, number: int, path: str) -> Page:
        """The page number C(number), which the server's link says is at C(path)."""
        if self._guess is None or self._pool is None:
            return self._fetch(path)
        for n in range(number, min(number + AHEAD, self._last + 1)):
            if n not in self._waiting:
                guess = self._guess(n)
                self._waiting[n] = (guess, self._pool.submit(self._fetch, guess))
        guessed, future = self._waiting.pop(number, (None, None))
        if guessed is not None and future is not None and _same(guessed, path):
            return future.result()
        self.stop()
        return self._fetch(path)

    def stop(self) -> None:
        """Give up guessing."""
        for _path, future in self._waiting.values():
            future.cancel()
        self._waiting.clear()
        self._guess = None


def _key(record: Record) -> str:
    return record.get("href") or record.get("id") or repr(sorted(record.items()))


def _walk(fetch: Callable[[str], Page], path: str, step: str, pool: ThreadPoolExecutor | None) -> tuple[list[Record], int | None]:
    """All records from C(path) on, each once, and the total that the last page tells."""
    page = fetch(path)
    ahead = _Ahead(fetch, page, pool)
    found: dict[str, Record] = {}
    seen = {path}
    number = 1
    try:
        while True:
            before = len(found)
            for record in page.records:
                found.setdefault(_key(record), record)
            if page.following is None:
                return list(found.values()), page.total
            endless = page.total is not None and len(found) > page.total + ENDLESS
            if page.following in seen or endless or (number > 1 and len(found) == before):
                raise ServerError(
                    "The pages of the server's answer lead in a circle, or have no end.",
                    code="paging",
                    step=step,
                    said=f"after page {number} with {len(found)} different records of {page.total} comes {page.following}",
                )
            seen.add(page.following)
            number += 1
            page = ahead.get(number, page.following)
    finally:
        ahead.stop()


def records(
    client: Client,
    kind: str,
    *,
    step: str,
    fields: Sequence[str] = (),
    where: Fiql | None = None,
    page_size: int = PAGE,
    sort: str | None = "name",
) -> list[Record]:
    """All records of the type C(kind), as dicts of their attributes, each once.

    :raises ServerError: code C(paging) where links lead in a circle, or the count is not the total that the server tells, however
        often it is asked.
    """
    path = query_path(kind, client.era, fields=fields, where=where, page_size=page_size, sort=sort)

    def fetch(at: str) -> Page:
        try:
            return page_of(client.get(at, step=step))
        except ServerError as e:
            if e.code == "forbidden":
                e.add(next_command="log in as a user with the role System Administrator: this query is for them alone")
            raise

    told: list[str] = []
    together: dict[str, Record] = {}
    last: int | None = None
    for attempt in range(READS):
        with ThreadPoolExecutor(AHEAD, thread_name_prefix="page") as pool:
            found, total = _walk(fetch, path, step, pool)
        if total is None or total == len(found):
            return found
        # Records come and go while the list is read. And equal names have no order, so that one may be on two pages and another on none:
        # read it again, and take both together.
        if total != last:
            together, last = {}, total
        together.update((_key(r), r) for r in found)
        if total == len(together):
            return list(together.values())
        told.append(f"{total} told, {len(found)} given")
        if attempt + 1 < READS:
            client.sleep(0.2)
    raise ServerError(
        "The server tells of another number of records than it gives, so the list cannot be trusted.",
        code="paging",
        step=step,
        said="; ".join(told),
        next_command="try again when less is going on; if it stays so, ask the administrator of the vCloud Director cells",
    )
