# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.plugin_utils.plan import estimate
from ansible_collections.ferry.vmware.plugins.plugin_utils.plan.estimate import GUESS, MEASURED, STATED, DiskNeeds, Pace, Terms

GIB = 1 << 30
MEASURES = {
    "transports": {"https": {"rate": 200_000_000, "count": 3, "hosts": {"esx1": {"rate": 400_000_000}}}},
    "steps": {name: {"seconds": 5.0, "count": 3} for name in ("prepare", "copy", "cycle", "cutover", "land", "ready", "note")},
}
PACE = Pace(MEASURES["transports"], MEASURES["steps"])


def needs(reads: int = 10 * GIB, **more: Any) -> DiskNeeds:
    facts = {"key": "2000", "capacity": 40 * GIB, "allocated": 10 * GIB, "changed": None, "basis": "unknown", "delta": False, "churn": None}
    return DiskNeeds(**{**facts, "reads": reads, **more})


def phases(*disks: DiskNeeds, terms: Terms | None = None, pace: Pace = PACE, host: str = "esx9", **more: Any) -> dict[str, estimate.Phase]:
    facts = {"way": "https", "off": False, "absent": 1, "lands": True, **more}
    return {p.name: p for p in estimate.phases_of(disks, terms or Terms(), pace, host=host, **facts)}


def of_disk(**more: Any) -> DiskNeeds:
    disk = {"key": 2000, "capacity": 40 * GIB, "datastore_type": "VMFS", "chain": ["a"]}
    told: dict[str, Any] = {
        "way": "https",
        "warm": True,
        "off": False,
        "tracked": True,
        "snapshots": 0,
        "usage": {"allocated": 10 * GIB, "changed": None},
        "kept": None,
        "change_id": None,
        "to_copy": True,
        "now": 2000.0,
    }
    return estimate.needs_of({**disk, **more.pop("disk", {})}, **{**told, **more})


HISTORY = [
    {"at": 1000, "mode": "full", "changed": 0, "read": 10 * GIB, "seconds": 60},
    {"at": 1100, "mode": "incremental", "changed": 200_000_000, "read": 200_000_000, "seconds": 2},
    {"at": 1200, "mode": "incremental", "changed": 400_000_000, "read": 400_000_000, "seconds": 3},
]


@pytest.mark.parametrize(
    ("told", "reads"),
    [
        ({}, 10 * GIB),  # what is allocated is known of VMFS where nobody else's snapshot is there
        ({"warm": False}, 40 * GIB),  # a datastore's file is read as a whole
        ({"disk": {"datastore_type": "NFS"}}, 40 * GIB),
        ({"snapshots": 1}, 40 * GIB),
        ({"disk": {"chain": ["a", "b"]}}, 40 * GIB),
        ({"way": "nfc", "warm": False}, 10 * GIB),  # a stream has what is allocated
        ({"way": "nbd", "warm": False, "usage": {}}, 40 * GIB),
        ({"to_copy": False}, 0),
        ({"kept": {"state": "copying", "left": 3 * GIB, "history": []}}, 3 * GIB),
        ({"kept": {"state": "complete", "left": 0, "history": []}}, 10 * GIB),  # to be copied all the same: not by this ledger
        ({"change_id": "52 aa/7", "usage": {"allocated": 10 * GIB, "changed": 77}}, 77),
        ({"change_id": "52 aa/7", "kept": {"state": "complete", "left": 0, "history": HISTORY}}, 2_400_000_000),
        ({"change_id": "52 aa/7", "way": "nfc"}, 10 * GIB),  # a stream knows no delta
    ],
)
def test_what_is_to_be_read(told: dict[str, Any], reads: int) -> None:
    assert of_disk(**told).reads == reads


def test_changed_bytes_say_what_they_rest_on() -> None:
    assert of_disk().basis == "unknown"
    assert of_disk(change_id="52 aa/7", usage={"changed": 5}).basis == "areas"
    found = of_disk(change_id="52 aa/7", kept={"history": HISTORY})
    assert found.basis == "churn" and found.changed == 800 * 3_000_000
    assert of_disk(change_id="52 aa/7", kept={"history": HISTORY}, now=1e9).changed == 40 * GIB


def test_churn_is_that_of_the_cycles_after_the_last_full_pass() -> None:
    assert estimate.churn_of(HISTORY) == 3_000_000
    assert estimate.churn_of(HISTORY[:1]) is None and estimate.churn_of([]) is None
    assert estimate.churn_of([*HISTORY, {**HISTORY[0], "at": 1300}]) is None


def test_a_rate_is_the_one_stated_else_the_hosts_own_else_the_transports_else_a_guess() -> None:
    assert PACE.rate("https", "ESX1", 7.0) == estimate.Figure(7.0, STATED)
    assert PACE.rate("https", "ESX1", None) == estimate.Figure(400_000_000, MEASURED)
    assert PACE.rate("https", "esx2", None) == estimate.Figure(200_000_000, MEASURED)
    assert PACE.rate("nfc", "esx1", None) == estimate.Figure(estimate.RATES["nfc"], GUESS)


def test_a_cold_migration() -> None:
    found = phases(needs())
    assert list(found) == ["prepare", "copy", "verify", "land", "ready", "note"]
    assert found["copy"].alone == pytest.approx(5 + 10 * GIB / 2e8) and found["copy"].count == 10 * GIB
    assert found["verify"].count == 40 * GIB and {p.basis for p in found.values()} == {MEASURED}


def test_verification_as_it_was_asked_for() -> None:
    assert "verify" not in phases(needs(), terms=Terms(verify="none"))
    assert phases(needs(), terms=Terms(verify="sample"))["verify"].count == round(0.05 * 40 * GIB)


def test_what_was_never_measured_is_a_guess_and_the_shutdown_is_part_of_it() -> None:
    found = phases(needs(), pace=Pace())
    assert {p.basis for p in found.values() if p.name != "verify"} == {GUESS}
    running, off = found["copy"].alone, phases(needs(), pace=Pace(), off=True)["copy"].alone
    assert running - off == 30


def test_a_slight_guess_does_not_spoil_what_was_stated() -> None:
    assert phases(needs(reads=400 * GIB), terms=Terms(throughput=1e8), pace=Pace())["copy"].basis == STATED
    assert phases(needs(reads=1 << 20), terms=Terms(throughput=1e8), pace=Pace())["copy"].basis == GUESS


def test_a_warm_migration_is_away_for_its_last_delta_only() -> None:
    found = phases(needs(churn=1_000_000.0), terms=Terms(strategy="warm"))
    assert list(found) == ["prepare", "precopy", "cutover", "land", "ready", "note"]
    assert found["precopy"].count >= 50 * GIB  # read once, and proven
    assert found["cutover"].count < 2 * GIB and found["cutover"].basis == MEASURED


def test_a_churn_that_nobody_knows_is_guessed() -> None:
    found = phases(needs(allocated=4000 * GIB, capacity=4000 * GIB), terms=Terms(strategy="warm", outside=0.0))
    assert found["cutover"].basis == GUESS


def test_precopying_alone_ends_before_the_cutover() -> None:
    assert list(phases(needs(), terms=Terms(strategy="warm", phases=["precopy"]))) == ["prepare", "precopy"]
    found = phases(needs(reads=GIB, delta=True), terms=Terms(strategy="warm", phases=["cutover"]))
    assert list(found) == ["prepare", "cutover", "land", "ready", "note"] and found["cutover"].count > GIB


def test_where_all_is_there_nothing_takes_time() -> None:
    assert phases(needs(done=True), absent=0, lands=False) == {}
    assert list(phases(needs(done=True), absent=0)) == ["land", "ready", "note"]


def test_a_stated_landing_is_landing_and_readiness_together() -> None:
    found = phases(needs(), terms=Terms(landing=42.0))
    assert found["land"].alone == 42 and found["land"].basis == STATED and "ready" not in found


def test_a_conversion_takes_its_time_before_the_landing() -> None:
    found = phases(needs(), terms=Terms(converts=True))
    assert list(found) == ["prepare", "copy", "verify", "convert", "land", "ready", "note"]
    assert (found["convert"].alone, found["convert"].basis) == (estimate.STEPS["convert"], GUESS)
    known = Pace(PACE.transports, {**PACE.steps, "convert": {"seconds": 90.0, "count": 2}})
    assert (phases(needs(), terms=Terms(converts=True), pace=known)["convert"].alone) == 90
    assert phases(needs(), terms=Terms(converts=True, convert=60.0), pace=known)["convert"].basis == STATED
    assert "convert" not in phases(needs(), terms=Terms(converts=True, strategy="warm", phases=("precopy",)))
