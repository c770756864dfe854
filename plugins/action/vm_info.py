# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs the module vm_info as one of its run, whose session with vCenter it shares."""

from __future__ import annotations

from ansible_collections.ferry.vmware.plugins.plugin_utils.in_run import ActionModule

__all__ = ["ActionModule"]
