#!/usr/bin/env bash
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# tools/ansible_test.sh COMMAND ARGUMENT...: ansible-test in the stage, with a home of its own under build/ (it keeps
# virtual environments and a cache there). Fails where ansible-test found nothing to do, which it calls success itself.
set -euo pipefail
top=$(cd "$(dirname "$0")/.." && pwd)
home=$top/build/home
mkdir -p "$home/.ansible/test/cache" "$home/.config/pip"
cp "$top/tools/get_pip_24_2.py" "$home/.ansible/test/cache/"
# ansible-test passes on no PIP_ variable: the settings go where pip finds them by HOME. They may hold a password.
(
    umask 077
    {
        echo "[global]"
        "$top/build/uv/bin/python" -m pip config list | sed -n "s/^\(global\|:env:\)\.\([a-z-]*\)='\(.*\)'$/\2 = \3/p" |
            awk -F' = ' '{ last[$1] = $0 } END { for (key in last) if (key != "config-file") print last[key] }'
    } >"$home/.config/pip/pip.conf"
)
export HOME=$home PATH=$top/build/venv/bin:$PATH
unset PIP_CONFIG_FILE
version=$("$top/build/venv/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
cd "$top/build/collections/ansible_collections/ferry/vmware"
out=$top/build/logs/ansible-test-$1.out
code=0
ansible-test "$1" --color no --truncate 0 --python "$version" "${@:2}" 2>&1 | tee "$out" || code=$?
if grep -qE 'All targets skipped|No targets|WARNING: Skipping tests disabled' "$out" || ! grep -qE 'Running sanity test|Running .* integration' "$out"; then
    echo "ansible-test ran nothing: is the stage a git repository, and are the files in it?"
    exit 1
fi
exit "$code"
