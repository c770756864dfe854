# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What constraints say about one VM that is to go to one host. Pure."""

from __future__ import annotations

from typing import Any, Callable, Sequence

from .constraints import Rules, rules_of
from .move_checks import Forbids
from .site import Site


def forbidding(rules: Rules, site: Site) -> Forbids:
    """Forbids for C(rules): what pin, avoid and hold say, and what the move of this VM alone would newly break."""
    now = {m: vm.host for m, vm in site.vms.items()}
    broken_now = set(rules.broken(now))

    def forbids(vm: str, host: str) -> Sequence[str]:
        found = rules.against(vm, host) if vm in site.vms else []
        if rules.of(vm):
            after = rules.broken({**now, vm: host})
            found += [b for b in after if b not in broken_now and not any(str(r) in b and r.kind in ("pin", "avoid") for r in rules.of(vm))]
        return list(dict.fromkeys(found))

    return forbids


def forbids_of(constraints: Sequence[Any] | None, *, together: bool = True) -> Callable[[Site], Forbids]:
    """For the constraints of a play (constraints.parse has the schema) and those of the clusters.

    The result raises BadInput for constraints that cannot be read, or that cannot hold together; it says which. Rules of clusters that
    contradict each other are no hindrance here: they count as they are.

    :param together: whether those of the kind together count. In a plan all their VMs move, one a moment before the other.
    """

    def of(site: Site) -> Forbids:
        rules = rules_of(site, constraints)
        if constraints:
            rules.check(())
        if not together:
            rules = Rules(site, [r for r in rules.all if r.kind != "together"])
        return forbidding(rules, site)

    return of
