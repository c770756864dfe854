# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The names of the tags of many objects.

Vendor reference: vSphere Automation API, TagAssociation.list_attached_tags_on_objects (POST /api/cis/tagging/tag-association), Tag.get
(GET /api/cis/tagging/tag/{tag}).
"""

from __future__ import annotations

from typing import Iterable
from urllib.parse import quote

from ..errors import ServerError
from .client import Session
from .tags import TagApi

#: Objects in one question; the API takes 2,000.
_AT_ONCE = 500
_STEP = "read the tags"


def tags_of(session: Session, kind: str, morefs: Iterable[str]) -> dict[str, frozenset[str]]:
    """Names of the tags by MoRef; objects without a tag are left out.

    :param kind: HostSystem or VirtualMachine.
    :raises ServerError: code tags, where the API is not there or refuses.
    """
    wanted = list(morefs)
    ids: dict[str, list[str]] = {}
    api = TagApi(session)
    try:
        for start in range(0, len(wanted), _AT_ONCE):
            body = {"object_ids": [{"type": kind, "id": m} for m in wanted[start : start + _AT_ONCE]]}
            answer = api.ask("POST", "/api/cis/tagging/tag-association?action=list-attached-tags-on-objects", body)
            try:
                ids.update({str(found["object_id"]["id"]): [str(t) for t in found["tag_ids"]] for found in answer or ()})
            except (KeyError, TypeError) as e:
                raise ServerError("vCenter's answer about tags has another form.", code="tags", step=_STEP, said=e) from e
        names: dict[str, str] = {}
        for tag in sorted({t for tags in ids.values() for t in tags}):
            found = api.ask("GET", f"/api/cis/tagging/tag/{quote(tag, safe='')}")
            if not isinstance(found, dict) or not isinstance(found.get("name"), str):
                raise ServerError("vCenter's answer about a tag has another form.", code="tags", step=_STEP)
            names[tag] = found["name"]
    finally:
        api.close()
    return {moref: frozenset(names[t] for t in tags) for moref, tags in ids.items() if tags}
