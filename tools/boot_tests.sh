#!/usr/bin/env bash
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# tools/boot_tests.sh STAGE [PYTEST ARGUMENTS]: start an OpenStack of its own with Nova on libvirt (FERRY_LAB_BASE, FERRY_LAB_DIR),
# run the tests that boot guests in it from the staged collection, and stop it, whatever happened.
set -euo pipefail
top=$(cd "$(dirname "$0")/.." && pwd)
stage=$1
shift
: "${FERRY_LAB_DIR:?}" "${FERRY_LAB_BASE:?}"
lab() { (cd "$top" && build/venv/bin/python -m tests.lab "$@"); }
lab wipe
trap 'lab down' EXIT
lab up openstack --nova libvirt
cd "$stage"
if [ $# -eq 0 ] || [ "${1#-}" != "$1" ]; then set -- tests/lab_tests/test_libvirt_*.py "$@"; fi
PYTHONPATH=${stage%/ansible_collections/*}:$stage "$top/tools/with_lab.sh" "$top/build/venv/bin/python" -m pytest -m long "$@"
