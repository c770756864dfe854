#!/bin/sh
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# tools/stage.sh [ROOT]: put the working tree where Ansible's tools want a collection, ROOT/ansible_collections/ferry/vmware
# (ROOT is build/collections unless given), and print that folder.
set -eu
exec "${PYTHON:-python3}" "$(dirname "$0")/stage.py" "$@"
