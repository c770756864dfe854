#!/usr/bin/env bash
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# tools/with_lab.sh COMMAND...: run COMMAND with the environment of the lab in FERRY_LAB_DIR (build/lab).
set -euo pipefail
top=$(cd "$(dirname "$0")/.." && pwd)
export FERRY_LAB_DIR=${FERRY_LAB_DIR:-$top/build/lab}
if [ ! -r "$FERRY_LAB_DIR/env.sh" ]; then
    echo "No lab has been started in $FERRY_LAB_DIR: make lab"
    exit 1
fi
set -a
# shellcheck disable=SC1091 # written by the lab
. "$FERRY_LAB_DIR/env.sh"
set +a
export PATH=$top/build/venv/bin:$PATH
exec "$@"
