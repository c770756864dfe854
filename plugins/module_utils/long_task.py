# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options of the modules that run in the background under the action plugin of their name (twin of the doc fragment C(long_task))."""

from __future__ import annotations

from typing import Any

from .disk.progress import Progress, progress_from

__all__ = ["Progress", "long_task_spec", "progress_from"]


def long_task_spec() -> dict[str, Any]:
    """Both are used by the action plugin only; the module's spec has them so that it accepts what it is given."""
    return {
        "progress_interval": {"type": "float", "default": 5.0},
        "lease_seconds": {"type": "float", "default": 120.0},
    }
