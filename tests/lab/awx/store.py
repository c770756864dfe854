# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Objects as AWX keeps them: their fields, defaults and links are those of recorded answers."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

RECORDED: dict[str, Any] = json.loads((Path(__file__).parent / "recorded.json").read_text(encoding="utf-8"))
#: Kinds whose objects are found under another kind as well.
UNIFIED = ("job_templates", "projects", "inventory_sources", "workflow_job_templates", "workflow_approval_templates")
WHEN = "2026-11-22T00:00:00.000000Z"
Object = dict[str, Any]


class Refusal(Exception):
    """An answer that is an error: a status and a body."""

    def __init__(self, status: int, body: Any) -> None:
        super().__init__(f"{status} {body}")
        self.status = status
        self.body = body


class Store:
    """All objects. C(drop): fields by kind that this AWX shall not know."""

    def __init__(self, drop: dict[str, list[str]] | None = None) -> None:
        self.objects: dict[str, dict[int, Object]] = {}
        self.links: dict[tuple[str, int, str], list[int]] = {}
        self.secret: dict[int, dict[str, str]] = {}
        self.surveys: dict[int, Object] = {}
        self.drop = drop or {}
        self.last = 100
        for kind in ("organizations", "credential_types", "instance_groups", "execution_environments"):
            for one in RECORDED["present"][kind]:
                self._keep(kind, copy.deepcopy(one))

    def _keep(self, kind: str, one: Object) -> Object:
        self.objects.setdefault(kind, {})[int(one["id"])] = one
        self.last = max(self.last, int(one["id"]))
        return one

    def fields(self, kind: str) -> dict[str, Any]:
        """What OPTIONS says of the fields of a kind, for POST."""
        known = RECORDED["kinds"].get(kind)
        if known is None:
            raise Refusal(404, {"detail": "The requested resource could not be found."})
        return {k: v for k, v in known["post"].items() if k not in self.drop.get(kind, [])}

    def get(self, kind: str, number: int) -> Object:
        for one in (kind, *(UNIFIED if kind == "unified_job_templates" else ())):
            if number in self.objects.get(one, {}):
                return self.objects[one][number]
        raise Refusal(404, {"detail": "Not found."})

    def all(self, kind: str) -> list[Object]:
        kinds = UNIFIED if kind == "unified_job_templates" else (kind,)
        return [one for k in kinds for one in self.objects.get(k, {}).values()]

    def find(self, kind: str, query: str) -> list[Object]:
        """Objects by AWX's filters: C(field=value), C(or__field=value), C(relation__field=value)."""
        said = [(k, v) for k, v in parse_qsl(query, keep_blank_values=True) if k not in ("page", "page_size", "order_by")]
        ands = [(k, v) for k, v in said if not k.startswith("or__")]
        ors = [(k[4:], v) for k, v in said if k.startswith("or__")]
        found = self.all(kind)
        for one, _value in said:
            name = one.removeprefix("or__").partition("__")[0]
            if found and name not in found[0]:
                model = kind.removesuffix("s")
                raise Refusal(400, {"detail": f"{''.join(w.title() for w in model.split('_'))} has no field named '{name}'"})
        found = [o for o in found if all(self._value(o, k) == v for k, v in ands)]
        return [o for o in found if not ors or any(self._value(o, k) == v for k, v in ors)]

    def _value(self, one: Object, path: str) -> str:
        name, _dot, rest = path.partition("__")
        value = one.get(name)
        if rest:
            kind = {"organization": "organizations", "inventory": "inventories"}.get(name, f"{name}s")
            value = self.get(kind, int(value)).get(rest) if value else None
        return "" if value is None else str(value)

    def new(self, kind: str, said: Object) -> Object:
        """Make an object out of the recorded blank one of its kind."""
        self.last += 1
        blank = RECORDED["kinds"][kind]["blank"]
        text = json.dumps(blank).replace(f"/{kind}/{blank['id']}/", f"/{kind}/{self.last}/")
        one: Object = json.loads(text)
        roles = one.get("summary_fields", {}).get("object_roles", {})
        for number, role in enumerate(roles.values()):
            role["id"] = self.last * 100 + number
        for field in self.drop.get(kind, []):
            one.pop(field, None)
        one |= {"id": self.last, "created": WHEN, "modified": WHEN}
        self._keep(kind, one)
        self.write(kind, one, said)
        return one

    def write(self, kind: str, one: Object, said: Object) -> None:
        """Set what is writable; what is unknown is dropped without a word, as AWX does."""
        known = self.fields(kind)
        for name, value in said.items():
            if name in known and name in one:
                one[name] = value

    def linked(self, kind: str, number: int, name: str) -> list[int]:
        return self.links.setdefault((kind, number, name), [])

    def delete(self, kind: str, number: int) -> None:
        self.get(kind, number)
        del self.objects[kind][number]
        for key, numbers in self.links.items():
            if key[2].endswith("_nodes") and kind == "workflow_job_template_nodes" and number in numbers:
                numbers.remove(number)
