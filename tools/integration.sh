#!/usr/bin/env bash
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# tools/integration.sh [TARGET...]: ansible-test integration in the stage. ansible-test hands no environment on; the lab's
# variables go into integration_config.yml, as the dictionary lab_environment that the targets give to "environment:".
set -euo pipefail
top=$(cd "$(dirname "$0")/.." && pwd)
stage=$top/build/collections/ansible_collections/ferry/vmware
if [ -z "$(ls "$stage/tests/integration/targets" 2>/dev/null)" ]; then
    echo "There are no integration targets."
    exit 1
fi
umask 077
# One holds passwords, both (ansible-test writes the inventory) would be read by lint and by the tests of the tree.
trap 'rm -f "$stage/tests/integration/integration_config.yml" "$stage/tests/integration/inventory"' EXIT
"$top/build/venv/bin/python" - >"$stage/tests/integration/integration_config.yml" <<'END'
import json, os

names = [n for n in os.environ if n.startswith(("VMWARE_", "OS_", "FERRY_", "VCD_", "K8S_AUTH_"))]
print(json.dumps({"lab_environment": {n: os.environ[n] for n in sorted(names)}}, indent=2))
END
"$top/tools/ansible_test.sh" integration --allow-destructive "$@"
