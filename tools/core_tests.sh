#!/usr/bin/env bash
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# tools/core_tests.sh VERSION...: the archive in build/dist, installed as a user does and tested on each of these versions of ansible-core,
# with each Python in PYTHONS: unit tests of what knows Ansible, the syntax of all playbooks, and playbooks against a vCenter of the lab.
# PYTHONS has the interpreters; by default it is the one that make runs with.
set -euo pipefail
top=$(cd "$(dirname "$0")/.." && pwd)
uv=$top/build/uv/bin/uv
code=0
# uv does not read pip's settings by itself.
eval "$("$top/build/uv/bin/python" -c 'import os, shlex, sys; sys.path.insert(0, sys.argv[1]); import bootstrap
for k, v in bootstrap.uv_environment().items():
    if os.environ.get(k) != v: print(f"export {k}={shlex.quote(v)}")' "$top/tools")"

one() { # VERSION PYTHON
    local name venv cols here version
    version=$1
    name=$version-$("$2" -c 'import sys; print("py%d%d" % sys.version_info[:2])')
    here=$top/build/cores/$name
    venv=$here/venv
    cols=$here/collections
    mkdir -p "$here"
    [ -x "$venv/bin/python" ] || "$uv" venv -q --python "$2" "$venv"
    grep -vE '^(ansible-core|resolvelib)==' "$top/requirements/dev.lock" >"$here/constraints.txt"
    "$uv" pip install -q --python "$venv/bin/python" -c "$here/constraints.txt" -r "$top/requirements/core.txt" "ansible-core~=$version.0" || return 1
    rm -rf "$cols"
    mkdir -p "$cols/ansible_collections"
    for other in "$top"/build/collections/ansible_collections/*/; do
        other=${other%/}
        [ "${other##*/}" = ferry ] || ln -s "$other" "$cols/ansible_collections/"
    done
    "$venv/bin/ansible-galaxy" collection install --no-deps -p "$cols" "$top"/build/dist/ferry-vmware-*.tar.gz >/dev/null || return 1
    export ANSIBLE_COLLECTIONS_PATH=$cols PATH=$venv/bin:$PATH
    echo "== $("$venv/bin/ansible" --version | head -n 1), $("$venv/bin/python" --version)"
    local failed=0
    for book in "$cols"/ansible_collections/ferry/vmware/playbooks/*.yml; do
        "$venv/bin/ansible-playbook" --syntax-check "$book" >"$here/syntax.log" 2>&1 || { tail -n 20 "$here/syntax.log"; failed=1; }
    done
    # What knows Ansible. The layers below it import nothing of ansible-core (make lint-layers), and tests of the tree itself
    # (tests/unit/meta) look at files that no archive has.
    env -C "$cols/ansible_collections/ferry/vmware" PYTHONPATH="$cols:$top" "$venv/bin/python" -m pytest -q -p no:cacheprovider -n 2 \
        -c "$top/pyproject.toml" --rootdir . -m 'not slow and not long' tests/unit/roles tests/unit/plugins \
        --ignore-glob='tests/unit/plugins/module_utils/*/*' || failed=1
    env -C "$top/build/collections/ansible_collections/ferry/vmware" PYTHONPATH="$cols:$top/build/collections/ansible_collections/ferry/vmware" \
        "$venv/bin/python" -m pytest -q -p no:cacheprovider tests/lab_tests/test_quick_start.py tests/lab_tests/test_failover_play.py || failed=1
    return $failed
}

for version in "$@"; do
    for python in ${PYTHONS:-$top/build/venv/bin/python}; do
        (one "$version" "$python") || { echo "FAILED on ansible-core $version with $python"; code=1; }
    done
done
exit $code
