# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which chunks a sample looks at: the same for the same run, others in the next one, until all had their turn."""

from __future__ import annotations

import random
from typing import Callable, Iterator

from .digest import SEGMENT
from .ledger import BASE, DATA, DIRTY, OLD, UNKNOWN, ZERO, Ledger


def clean(state: int) -> bool:
    """Whether the chunk has a digest that the source should have, too, if nothing in it changed."""
    return state & BASE in (ZERO, DATA) and not state & (OLD | DIRTY)


def known(state: int) -> bool:
    """Whether the chunk will equal the source's once its changed areas are copied, if nothing else in it changed."""
    return state & BASE != UNKNOWN and not state & OLD


def choose(ledger: Ledger, share: float, generation: int, *, fits: Callable[[int], bool] = clean) -> Iterator[int]:
    """About C(share) (0 to 1) of the chunks whose state C(fits), at least one, spread over the disk.

    Each segment's chunks are shuffled, always in the same way, and each C(generation) goes on in that order where the one
    before stopped: after 1 / C(share) runs every chunk has been looked at.
    """
    if share <= 0:
        return
    share = min(share, 1.0)
    found = 0
    spare: int | None = None
    for number in range(-(-ledger.chunks // SEGMENT)):
        first = number * SEGMENT
        states = ledger.states(first, min(SEGMENT, ledger.chunks - first))
        order = list(range(len(states)))
        random.Random(f"{ledger.fact('disk', '')}:{ledger.capacity}:{number}").shuffle(order)
        start, end = (int((generation + i) * share * len(order)) for i in (0, 1))
        chosen = sorted({c for i in range(start, end) if fits(states[c := order[i % len(order)]])})
        found += len(chosen)
        for c in chosen:
            yield first + c
        if not found and spare is None:
            turned = (order[(start + i) % len(order)] for i in range(len(order)))
            spare = next((first + c for c in turned if fits(states[c])), None)
    if not found and spare is not None:
        yield spare
