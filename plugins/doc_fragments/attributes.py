# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """What the attributes mean; how far a module goes in each, it says itself."""

    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode), and then says what it would do without changing anything.
  diff_mode:
    description: Returns what was before and what is after, when in diff mode.
  idempotency:
    description:
      - When run again with the same options, it changes nothing and reports C(changed=false), as long as nobody altered the
        result in the meantime.
"""
