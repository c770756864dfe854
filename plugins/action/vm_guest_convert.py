# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs the module ferry.vmware.vm_guest_convert in the background and shows its progress."""

from __future__ import annotations

from ansible_collections.ferry.vmware.plugins.plugin_utils.long_task import LongTask


class ActionModule(LongTask):
    MODULE = "ferry.vmware.vm_guest_convert"
    IDENTITY = ("vm", "disks")
