# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one place that talks to AnsibleModule: parameters in, result or error out."""

from __future__ import annotations

import re
import traceback
from dataclasses import dataclass, field
from typing import Any, Callable, Iterator

from ansible.module_utils.basic import AnsibleModule

from .disk.errors import FerryError


@dataclass(frozen=True)
class Call:
    """What a module was asked to do, free of AnsibleModule, so that the work below can be called from plain Python."""

    params: dict[str, Any]
    check: bool = False
    diff: bool = False
    warn: Callable[[str], None] = field(default=lambda text: None)


_SECRET = re.compile("password|passcode|secret|token|api_?key", re.IGNORECASE)


def nested_secrets(value: Any, *, under: bool = False) -> Iterator[str]:
    """Strings in a nested value whose key says that they are secrets."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from nested_secrets(inner, under=bool(_SECRET.search(str(key))))
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from nested_secrets(inner, under=under)
    elif under and isinstance(value, str) and value:
        yield value


def run(spec: dict[str, Any], work: Callable[[Call], dict[str, Any]], **kwargs: Any) -> None:
    """Run C(work) as an Ansible module.

    :param spec: the argument spec.
    :param work: gets a Call and returns the module's result; C(changed) defaults to false. It raises FerryError for
        whatever the user has to know; an attribute C(partial) of that error (a dict) is added to the failed result.
    :param kwargs: passed on to AnsibleModule (mutually_exclusive, required_if ...); check mode is supported by default.
    """
    kwargs.setdefault("supports_check_mode", True)
    module = AnsibleModule(argument_spec=spec, **kwargs)
    # A cloud may be a name, which has to be shown, or a whole configuration with its password: no_log cannot tell them apart.
    module.no_log_values.update(nested_secrets(module.params.get("cloud")))
    try:
        result = work(Call(module.params, module.check_mode, module._diff, module.warn))
    except FerryError as e:
        module.fail_json(msg=str(e), failure=e.as_dict(), **e.partial)
    except Exception as e:
        module.fail_json(
            msg=f"A defect in ferry.vmware: {type(e).__name__}: {str(e)[:500]}. Please report it with the traceback (-vvv).",
            failure={"code": "defect"},
            exception=traceback.format_exc(),
        )
    result.setdefault("changed", False)
    module.exit_json(**result)
