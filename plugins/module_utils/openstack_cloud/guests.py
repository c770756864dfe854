# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a volume says of the guest in it: nothing yet, that its conversion is being written down, or which hardware it needs. Pure.

The word stands on each volume of the guest, so that every machine that plans a landing knows it, and a copy that begins anew takes it off.
"""

from __future__ import annotations

import json
from typing import Any, Mapping

#: The key. Its value: COMMITTING with a token, or the hardware as JSON (disk_bus, nic_model, firmware, machine).
GUEST = "ferry_guest"
COMMITTING = "committing:"
#: The digest of what was copied: of a converted volume it is no longer the digest of what stands there.
COPIED = "ferry_copied_digest"
#: What the hardware says, in Nova's words.
FIELDS = ("disk_bus", "nic_model", "firmware", "machine")


def needs(metadata: Mapping[str, Any] | None) -> dict[str, str] | None:
    """The hardware that the guest of a volume needs; None where the volume does not say."""
    try:
        found = json.loads(str((metadata or {}).get(GUEST) or ""))
    except ValueError:
        return None
    if not isinstance(found, dict) or not all(isinstance(found.get(k), str) for k in FIELDS):
        return None
    return {k: found[k] for k in FIELDS}


def token(metadata: Mapping[str, Any] | None) -> str:
    """The token of a conversion that is being written down, or was killed while it was; empty where there is none."""
    said = str((metadata or {}).get(GUEST) or "")
    return said[len(COMMITTING) :] if said.startswith(COMMITTING) else ""


def state(metadata: Mapping[str, Any] | None) -> str:
    """C(committing), C(ready) (the guest suits the hardware that the volume says) or empty."""
    return "committing" if token(metadata) else "ready" if needs(metadata) else ""
