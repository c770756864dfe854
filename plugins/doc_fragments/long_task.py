# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options of the modules that may run for hours (twin of C(module_utils/long_task.py))."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  progress_interval:
    description:
      - Seconds between two progress lines of a disk.
      - With V(0) no lines are shown.
    type: float
    default: 5.0
  lease_seconds:
    description:
      - The work on the target stops by itself when its controller has shown no sign of life for so many seconds.
        The next run of the same task goes on from there.
      - A broken connection is tried again for this long (at least a minute) while the work goes on.
      - With V(0) the work goes on to its end without a controller, and the next run of the same task attaches to it.
    type: float
    default: 120.0
notes:
  - The module runs in the background on the target and this task shows its progress, so O(ignore:async) and O(ignore:poll)
    cannot be set on the task.
  - Ctrl-C, C(SIGTERM) and the death of C(ansible-playbook) stop the work. A run that is still alive is found by the next run
    of the same task, which attaches to it.
  - Status files are in C(~/.ansible/ferry) on the target, for the user of the task only.
  - With the variable C(ferry_metrics_dir), a folder on the target, figures for Prometheus are written there too.
"""
