#!/usr/bin/env bash
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Build the collection's archive into build/dist, which then holds that one alone.
set -euo pipefail
top=$(cd "$(dirname "$0")/.." && pwd)
rm -rf "$top/build/dist"
"$top/build/venv/bin/python" "$top/tools/dist.py" "$top/build/dist"
