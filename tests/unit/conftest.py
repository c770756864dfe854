# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path

import pytest

#: The collection's folder, as staged.
TOP = Path(__file__).resolve().parent.parent.parent


def pytest_configure() -> None:
    """The collection is imported under its own name, so it has to lie where that name leads."""
    if TOP.parts[-3:] != ("ansible_collections", "ferry", "vmware"):
        raise pytest.UsageError("Unit tests run in the stage: make test-unit ARGS='tests/unit/... -k ...'")


@pytest.fixture(scope="session")
def top() -> Path:
    """The collection's folder."""
    return TOP
