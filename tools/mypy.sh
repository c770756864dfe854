#!/usr/bin/env bash
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# mypy --strict: the collection under its own name from the stage, then the tools, the lab and the demo from the checkout.
set -uo pipefail
top=$(cd "$(dirname "$0")/.." && pwd)
code=0
cd "$top/build/collections" || exit
MYPYPATH=$PWD "$top/build/venv/bin/mypy" --config-file "$top/pyproject.toml" --cache-dir "$top/.mypy_cache/stage" \
    -p ansible_collections.ferry.vmware.plugins || code=1
cd "$top" || exit
folders=()
for folder in tools demo tests/lab tests/bench; do
    [ -z "$(find $folder -name '*.py' -not -path '*/programs/*' -print -quit 2>/dev/null)" ] || folders+=("$folder")
done
MYPYPATH=$PWD/build/collections:$PWD "$top/build/venv/bin/mypy" --config-file pyproject.toml --cache-dir .mypy_cache/checkout \
    "${folders[@]}" || code=1
exit $code
