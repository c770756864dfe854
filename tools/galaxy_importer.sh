#!/usr/bin/env bash
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Let Galaxy's importer look at the archive in build/dist. It writes into its working folder.
set -euo pipefail
top=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d "$top/build/importer.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"
export PATH=$top/build/venv/bin:$PATH
python -m galaxy_importer.main "$top"/build/dist/ferry-vmware-*.tar.gz 2>&1 | tee out
! grep -E '^(ERROR|CRITICAL)' out
