# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A second host goes on with a target, without the first one's ledger."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.disk import copy, errors, takeover

from .guest import MIB, Guest, Way


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    return Guest(tmp_path, 20 * MIB + 512)


def lose_the_ledger(way: Way) -> None:
    for path in way.folder.glob("ledger.sqlite*"):
        path.unlink()


def take_over(way: Way, at: Any, **facts: Any) -> takeover.TakenOver:
    with way.job(at) as job:
        return takeover.adopt(job.ledger, job.sink, disk="Hard disk 1", **facts)


@pytest.mark.fault("the ledger is lost", where="copy", ends="made anew from the target; by its digest the changes suffice")
def test_with_the_digest_of_the_metadata_the_changes_suffice(tmp_path: Path, guest: Guest) -> None:
    way = Way(tmp_path, guest)
    at = guest.snapshot()
    first = way.copy(at)
    lose_the_ledger(way)
    found = take_over(way, at, digest=first.digest, change_id=at.change_id)
    assert found.equal and found.digest == first.digest and 0 < found.bytes_read < guest.size, "holes are not read"
    guest.work()
    at = guest.snapshot()
    result = way.copy(at, verify="sample", mode="incremental")
    assert result.mode == "incremental" and result.repaired == 0 and way.equal(at)


def cut_off_in_a_delta(way: Way, guest: Guest) -> copy.Result:
    first = way.copy(guest.snapshot())
    guest.work(20)
    at = guest.snapshot()
    with way.job(at, unit=MIB) as job:
        job.prepare()
        for unit in list(copy._units(job))[:3]:
            job.work(unit)
    lose_the_ledger(way)
    guest.work()
    return first


@pytest.mark.fault("the ledger is lost in the middle of a delta", where="copy", ends="the whole disk is compared: equal")
def test_another_digest_leads_to_a_comparison(tmp_path: Path, guest: Guest) -> None:
    way = Way(tmp_path, guest)
    first = cut_off_in_a_delta(way, guest)
    at = guest.snapshot()
    found = take_over(way, at, digest=first.digest, change_id=first.change_id)
    assert not found.equal
    with pytest.raises(errors.BadInput):
        way.copy(at, mode="incremental")
    result = way.copy(at)
    assert result.mode == "compare" and "another host" in result.reason and way.equal(at)
    assert result.bytes_written > 0 and result.bytes_skipped > 0
    guest.work(2)
    at = guest.snapshot()
    assert way.copy(at).reason == "" and way.equal(at)


@pytest.mark.parametrize("verify", ["none", "sample"])
def test_believed_it_goes_on_with_the_changes_and_says_what_is_not_proven(tmp_path: Path, guest: Guest, verify: str) -> None:
    way = Way(tmp_path, guest)
    first = cut_off_in_a_delta(way, guest)
    at = guest.snapshot()
    take_over(way, at, digest=first.digest, change_id=first.change_id, believe=True)
    result = way.copy(at, verify=verify)
    assert result.mode == "incremental" and "not proven" in result.reason and way.equal(at)
    assert result.bytes_read <= 1.1 * result.changed_bytes


def test_without_metadata_everything_is_compared(tmp_path: Path, guest: Guest) -> None:
    way = Way(tmp_path, guest)
    at = guest.snapshot()
    way.copy(at, untracked=True)
    lose_the_ledger(way)
    take_over(way, at, digest=None, change_id=None)
    result = way.copy(at, untracked=True)
    assert result.mode == "compare" and result.bytes_written == 0 and way.equal(at)
