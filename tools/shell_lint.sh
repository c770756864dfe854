#!/usr/bin/env bash
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Runs shellcheck over every file of ours whose first line names a shell, whatever its suffix.
set -euo pipefail
git ls-files -coz --exclude-standard | while IFS= read -r -d '' file; do
    if [ -f "$file" ] && head -c 64 -- "$file" | head -n 1 | grep -qaE '^#!.*\b(ba|da)?sh\b'; then printf '%s\0' "$file"; fi
done | xargs -0r shellcheck --
