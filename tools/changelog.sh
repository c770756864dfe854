#!/usr/bin/env bash
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# CHANGELOG.rst and changelogs/changelog.yaml from the fragments, for the version in galaxy.yml. A release that is there already keeps its
# day. antsibull-changelog lists new modules, plugins and roles by asking ansible-doc, which wants a collection in its place: the stage.
set -euo pipefail
top=$(cd "$(dirname "$0")/.." && pwd)
export PATH=$top/build/venv/bin:$PATH ANSIBLE_COLLECTIONS_PATH=$top/build/collections
stage=$top/build/collections/ansible_collections/ferry/vmware
cd "$stage"
version=$(sed -n 's/^version: //p' galaxy.yml)
day=$(python -c 'import sys, yaml; print(yaml.safe_load(open("changelogs/changelog.yaml"))["releases"].get(sys.argv[1], {}).get("release_date", ""))' "$version")
antsibull-changelog release --update-existing --reload-plugins --version "$version" ${day:+--date "$day"}
cp CHANGELOG.rst "$top/CHANGELOG.rst"
cp changelogs/changelog.yaml "$top/changelogs/changelog.yaml"
