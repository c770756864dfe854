#!/usr/bin/env bash
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Build the collection's archive from the stage (the checkout would put build/ into it), into build/dist.
set -euo pipefail
top=$(cd "$(dirname "$0")/.." && pwd)
rm -rf "$top/build/dist"
mkdir -p "$top/build/dist"
"$top/build/venv/bin/ansible-galaxy" collection build --force --output-path "$top/build/dist" \
    "$top/build/collections/ansible_collections/ferry/vmware"
ls -l "$top/build/dist"
