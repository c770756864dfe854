# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the inventory plugins share: names that stand for one thing each, values that are no templates, expressions over variables."""

from __future__ import annotations

import hashlib
import json
import re
from functools import lru_cache
from typing import Any, Callable, Iterable, Sequence

from ansible.errors import AnsibleError, AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable
from ansible.utils.unsafe_proxy import wrap_var

try:
    from ansible.template import trust_as_template
except ImportError:  # before ansible-core 2.19, where every string that is not wrapped counts as trusted

    def trust_as_template(value: str) -> str:
        return value


PLAIN_PATH = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")


def protect(value: Any) -> Any:
    """C(value) so that nothing that a server says is ever taken for a template.

    A string that cannot be one (no brace, no line that redefines the delimiters) is left plain, so that C(ansible-inventory --list)
    shows it as a string and not as {"__ansible_unsafe": ...}.
    """
    if isinstance(value, str):
        return _protect_text(value)
    if isinstance(value, dict):
        return {k: protect(v) for k, v in value.items()}
    if isinstance(value, list):
        return [protect(v) for v in value]
    return value


@lru_cache(maxsize=10000)
def _protect_text(text: str) -> Any:
    # A thousand VMs say the same few guest ids and states: each is marked once.
    harmless = "{" not in text and not text.startswith("#jinja2")
    return trust_as_template(text) if harmless else wrap_var(text)


def unique_names(names: Sequence[tuple[str, str]], reserved: Iterable[str] = ()) -> tuple[list[str], dict[str, list[str]]]:
    """Inventory names for C(names), pairs of (name, MoRef or another id): a name that several have gets the id of each added, for all of them.

    So the names do not depend on the order in which the server answers, and removing one of two changes nothing silently.

    :param reserved: names that none may have.
    :returns: the names in the same order, and the new names by the one that was shared.
    """
    times = dict.fromkeys(reserved, 1)
    for name, _id in names:
        times[name] = times.get(name, 0) + 1
    taken = {name for name, count in times.items() if count == 1} | set(reserved)
    result: list[str] = []
    shared: dict[str, list[str]] = {}
    for name, suffix in names:
        unique = name
        if times[name] > 1:
            while unique == name or unique in taken:
                unique = f"{unique}_{suffix}"
            taken.add(unique)
            shared.setdefault(name, []).append(unique)
        result.append(unique)
    return result, shared


def _which(variables: dict[str, Any]) -> Any:
    """What names the VM of C(variables) best."""
    return next((variables[k] for k in ("ferry_path", "ferry_href", "ferry_name") if k in variables), "a host")


class InventoryBase(BaseInventoryPlugin, Constructable, Cacheable):
    """An inventory of VMs."""

    def _through_cache(self, path: str, cache: bool, question: list[Any], read: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
        """What C(read) returns, from the cache where it has that.

        :param question: what decides the answer (no secrets): that to another question, or of another server, is never taken.
        """
        if not self.get_option("cache"):
            return read()
        self.load_cache_plugin()
        text = json.dumps(question, sort_keys=True, default=str)
        key = self.get_cache_key(path) + "_" + hashlib.sha256(text.encode()).hexdigest()[:16]
        if cache:
            try:
                found: list[dict[str, Any]] = self._cache[key]
                return found
            except KeyError:
                pass
        fresh = read()
        self._cache[key] = fresh
        return fresh

    def _templated(self, names: Iterable[str], templates: Iterable[str]) -> dict[str, Any]:
        """The options C(names), those in C(templates) with their templates resolved."""
        params = {name: self.get_option(name) for name in names}
        for name in templates:
            if self.templar.is_template(params[name]):
                params[name] = self.templar.template(params[name])
        return params

    def _tell_shared(self, shared: dict[str, list[str]], added: str) -> None:
        """Warn of names that unique_names() had to make longer."""
        if shared:
            told = "; ".join(f"{name} is {', '.join(news)}" for name, news in list(shared.items())[:10])
            more = " and so on" if len(shared) > 10 else ""
            self.display.warning(f"Names that stand for more than one thing in this inventory got {added} added: {told}{more}")

    def _compose(self, template: str, variables: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """The value of an expression. That of a plain path (config.guestId), as most are, is looked up without Jinja."""
        if isinstance(template, str) and PLAIN_PATH.fullmatch(template):
            found: Any = variables
            for part in template.split("."):
                # what Jinja would take for a method of the dict is left to Jinja
                found = found.get(part) if isinstance(found, dict) and not hasattr(dict, part) else None
            if found is not None:
                return found
        return super()._compose(template, variables, *args, **kwargs)

    def _passes(self, filters: list[str], variables: dict[str, Any], strict: bool) -> bool:
        for expression in filters:
            try:
                if not self._compose(expression, variables):
                    return False
            except AnsibleError as e:
                if strict:
                    raise AnsibleParserError(f"The filter {expression} fails for {_which(variables)}: {e}") from e
                return False
        return True

    def _hostname(self, hostnames: list[str], variables: dict[str, Any], strict: bool) -> str | None:
        for expression in hostnames:
            try:
                value = self._compose(expression, variables)
            except AnsibleError as e:
                if strict:
                    raise AnsibleParserError(f"The name {expression} fails for {_which(variables)}: {e}") from e
                continue
            if value:
                return str(value)
        return None
