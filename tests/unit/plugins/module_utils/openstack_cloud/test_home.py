# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Work in threads, of which a part runs in the first one."""

from __future__ import annotations

import threading

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.openstack_cloud.home import Home


def test_what_is_asked_for_runs_at_home() -> None:
    home, seen = Home(), []
    together = threading.Barrier(3)

    def work(item: int) -> None:
        together.wait(30)  # all are under way at once
        seen.append((item, home.run(threading.get_ident), threading.get_ident() != threading.main_thread().ident))

    assert home.each(work, [1, 2, 3], at_once=8) == []
    assert sorted(seen) == [(n, threading.get_ident(), True) for n in (1, 2, 3)]
    assert home.run(threading.get_ident) == threading.get_ident(), "here it is done at once"
    assert home.each(work, [], at_once=8) == []


def test_errors_of_both_sides_in_the_items_order() -> None:
    home, done = Home(), []

    def fail() -> None:
        raise ValueError("at home")

    def work(item: str) -> None:
        if item == "home":
            home.run(fail)
        if item == "thread":
            raise KeyError(item)
        done.append(item)

    errors = home.each(work, ["thread", "fine", "home", "fine too"], at_once=2)
    assert [type(e) for e in errors] == [KeyError, ValueError] and sorted(done) == ["fine", "fine too"]
    with pytest.raises(ValueError, match="at home"):
        home.run(fail)
