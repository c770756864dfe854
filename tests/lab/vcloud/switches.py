# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the lab's vCloud Director does where the product is unknown or may be configured: one switch each, with its reason."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, ClassVar

from .errors import ControlError

# vCD 9.0 to 10.6 speak 29.0 to 39.x [D]; 1.5 and 5.1 are vCD 1.5 and 5.1.
ALL_VERSIONS = ["1.5", "5.1", *(f"{n}.0" for n in range(29, 38)), "37.3", "38.0", "38.1", "39.0", "39.1"]


@dataclass
class Switches:
    """The settings of one server. README.md says why each is one and what its default stands on."""

    versions: list[str] = field(default_factory=lambda: list(ALL_VERSIONS))
    deprecated: list[str] = field(default_factory=list)
    alpha_versions: list[str] = field(default_factory=list)
    public_url: str = ""  # empty: https://localhost:PORT, which differs from the address 127.0.0.1
    no_version: str = "refuse"  # lowest, highest
    # Sessions
    idle_seconds: float = 1800.0
    expired_status: int = 401  # 403
    no_login_status: int = 401  # 403
    missing_status: int = 403  # 404
    provider_log_out: str = "refuse"  # accept
    # Queries
    page_size_max: int = 128
    page_size_over: str = "clamp"  # refuse, allow
    page_past_end: str = "empty"  # refuse
    order: str = "stable"  # shuffled: pages without a sort, and equal keys of a sort, come in any order
    # Moves
    relocate_removed_status: int = 404  # 405, 406, 410
    profile_mismatch: str = "allow"  # refuse, move_back
    full_datastore: str = "task"  # post
    linked_clone: str = "shadow"  # refuse
    shadow_cleanup: str = "immediate"  # never
    move_other_disks: bool = True
    disk_datastores: bool = True
    busy_vapp: bool = False
    busy_chain: bool = False
    already_there: str = "success"  # refuse
    # Tasks
    task_seconds: float = -1.0  # below 0: by size
    seconds_base: float = 0.2
    seconds_per_mb: float = 0.00005
    clock_speed: float = 1.0
    progress: bool = True
    per_datastore: int = 8
    per_host: int = 2
    queued_status: str = "queued"  # running
    max_operations: int = 0  # 0: no limit
    task_keep_seconds: float = 86400.0
    cancel_seconds: float = 0.1

    CHOICES: ClassVar[dict[str, tuple[Any, ...]]] = {
        "no_version": ("refuse", "lowest", "highest"),
        "expired_status": (401, 403),
        "no_login_status": (401, 403),
        "missing_status": (403, 404),
        "provider_log_out": ("refuse", "accept"),
        "page_size_over": ("clamp", "refuse", "allow"),
        "page_past_end": ("empty", "refuse"),
        "order": ("stable", "shuffled"),
        "relocate_removed_status": (404, 405, 406, 410),
        "profile_mismatch": ("allow", "refuse", "move_back"),
        "full_datastore": ("task", "post"),
        "linked_clone": ("shadow", "refuse"),
        "shadow_cleanup": ("immediate", "never"),
        "already_there": ("success", "refuse"),
        "queued_status": ("queued", "running"),
    }

    def update(self, values: dict[str, Any]) -> None:
        """Set switches by name; all or none. Raises ControlError with every mistake."""
        errors: list[str] = []
        new: dict[str, Any] = {}
        for name, value in values.items():
            if name not in {f.name for f in dataclasses.fields(self)}:
                errors.append(f"there is no switch {name}")
                continue
            old = getattr(self, name)
            if isinstance(old, float) and isinstance(value, int) and not isinstance(value, bool):
                value = float(value)
            if type(value) is not type(old) or (isinstance(value, list) and not all(isinstance(x, str) for x in value)):
                errors.append(f"{name}: {value!r} is no {type(old).__name__}")
            elif name in self.CHOICES and value not in self.CHOICES[name]:
                errors.append(f"{name}: {value!r} is none of {', '.join(map(str, self.CHOICES[name]))}")
            new[name] = value
        if errors:
            raise ControlError("; ".join(errors))
        for name, value in new.items():
            setattr(self, name, value)

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)
