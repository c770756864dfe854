# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is written down of a source before it is changed, and when a value counts as found or as our own."""

from __future__ import annotations

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.fence import Card, Found, differing, merged, off_the_network, parse

UUID = "50210A1B-1111-4C6E-9F01-7A1E5B1C0001"


def found(power: str, **cards: str) -> Found:
    """Cards as "connected start", each 0 or 1: c4000="11"."""
    rows = tuple(Card(int(k[1:]), k, v[0] == "1", v[1] == "1") for k, v in cards.items())
    return Found(power, rows, False, {"scsi0:0": "FALSE"})


def test_a_record_is_read_as_it_was_written_and_fits_into_an_attribute() -> None:
    record = merged(None, found("on", **{f"c{4000 + n}": "10" for n in range(10)}), UUID, "", power=True, cards=True)
    assert parse(record.text(), UUID.lower()) == record and len(record.text()) < 500
    assert parse(record.text(), UUID.replace("1", "2")) is None and parse("", UUID) is None


@pytest.mark.parametrize(
    ("kept", "now", "recorded"),
    [
        ("11", "11", (True, True)),  # not changed yet
        ("11", "00", (True, True)),  # ours, while it ran
        ("10", "00", (True, False)),
        ("01", "10", (True, False)),  # somebody has connected it since
        ("00", "11", (True, True)),
    ],
)
def test_what_is_off_the_network_the_second_time_was_taken_off_by_us(kept: str, now: str, recorded: tuple[bool, bool]) -> None:
    first = merged(None, found("on", c4000=kept), UUID, "", power=True, cards=True)
    assert merged(first, found("on", c4000=now), UUID, "cutover", power=True, cards=True).cards == {4000: recorded}


@pytest.mark.parametrize(("kept", "start"), [("11", True), ("01", True), ("10", False), ("00", False)])
def test_of_a_vm_that_is_off_connected_says_nothing(kept: str, start: bool) -> None:
    """Killed after the shutdown, before the cards: what was connected while it ran is known still."""
    first = merged(None, found("on", c4000=kept), UUID, "", power=True, cards=True)
    again = merged(first, found("off", c4000=f"0{start:d}"), UUID, "", power=False, cards=True)
    assert again == first
    assert merged(first, found("off", c4000="00"), UUID, "", power=False, cards=True) == first


def test_what_was_only_looked_at_is_looked_at_again() -> None:
    looked = merged(None, found("on", c4000="11", c4001="11"), UUID, "", power=False, cards=False)
    assert not looked.fenced
    assert merged(looked, found("on", c4000="00", c4001="11"), UUID, "", power=False, cards=False) == looked
    fenced = merged(looked, found("on", c4000="00", c4002="11"), UUID, "", power=True, cards=True)
    assert fenced.cards == {4000: (False, False), 4002: (True, True)} and fenced.fenced


def test_power_is_that_of_the_moment_when_it_is_changed() -> None:
    first = merged(None, found("off", c4000="01"), UUID, "", power=False, cards=True)
    assert first.power == "off"
    assert merged(first, found("on", c4000="11"), UUID, "", power=True, cards=True).power == "on"
    assert merged(first, found("on", c4000="11"), UUID, "", power=False, cards=True).power == "off"


def test_which_cards_differ() -> None:
    on, off = found("on", c4000="10", c4001="00"), found("off", c4000="01", c4001="00")
    assert differing(on, off_the_network(on)) == [4000] and differing(off, off_the_network(off)) == [4000]
    assert differing(off, {4000: (False, True)}) == [] and differing(on, {4000: (False, False), 9: (True, True)}) == [4000]
