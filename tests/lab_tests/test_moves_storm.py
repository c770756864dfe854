# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One short storm over moves, failover, drains and registrations (moves_storm.py); more by make storm-moves."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab_tests import moves_storm


@pytest.mark.fault(
    "random events, more by make storm-moves: hosts that die with their VMs or without, kills between any two calls, faults, lost sessions, restarts",
    where="moves",
    ends="each VM is registered once, its disks as they were, powered as it was; no lock is left, and no definition has two machines",
)
@pytest.mark.parametrize("seed", [1])
def test_storm(tmp_path: Path, seed: int) -> None:
    assert moves_storm.storm(tmp_path / "storm", seed, steps=6).runs > 0
