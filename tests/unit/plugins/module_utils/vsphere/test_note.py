# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.note import BEGIN, END, note_of, with_note

OTHERS = ["", "x", "x\n", "x\n\ny", "line\r\nline", "ends in blank \n \n"]


@pytest.mark.parametrize("other", OTHERS)
def test_the_block_comes_and_goes_without_a_trace(other: str) -> None:
    with_ours = with_note(other, "moved\nto the cloud\n")
    assert with_ours.startswith(other)
    assert note_of(with_ours) == "moved\nto the cloud"
    assert with_note(with_ours, "") == other
    assert with_note(with_ours, None) == other


@pytest.mark.parametrize("other", OTHERS)
def test_the_same_note_again_changes_nothing(other: str) -> None:
    once = with_note(other, "n")
    assert with_note(once, "n") == once


def test_another_note_takes_the_place_of_the_first() -> None:
    text = with_note("before", "one") + "\nafter"
    assert with_note(text, "two") == f"before\n{BEGIN}\ntwo\n{END}\nafter"
    assert with_note(text, "") == "before\nafter"


def test_text_that_was_added_behind_a_lone_block_stays_alone() -> None:
    assert with_note(with_note("", "one") + "\nafter", None) == "after"


def test_a_client_that_writes_crlf_changes_nothing_for_us() -> None:
    text = with_note("before", "a\nb").replace("\n", "\r\n")
    assert note_of(text) == "a\nb"
    assert with_note(text, "a\nb") == text
    assert with_note(text, None) == "before"


def test_a_second_block_goes() -> None:
    text = with_note("x", "one") + "\n" + with_note("", "two")
    assert note_of(with_note(text, "one")) == "one"
    assert with_note(text, "one").count(BEGIN) == 1
    assert with_note(text, None) == "x"


def test_half_a_block_is_somebody_elses_text() -> None:
    text = f"x\n{BEGIN}\nrest"
    assert note_of(text) is None
    assert with_note(text, None) == text


def test_a_note_cannot_hold_the_markers() -> None:
    with pytest.raises(BadInput):
        with_note("", f"a\n{END}\nb")
