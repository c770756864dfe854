#!/usr/bin/env bash
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# The collection's documentation as a site: guides and reference, in build/docs/html. A warning is an error.
set -euo pipefail
top=$(cd "$(dirname "$0")/.." && pwd)
export PATH=$top/build/venv/bin:$PATH ANSIBLE_COLLECTIONS_PATH=$top/build/collections NO_COLOR=1
rm -rf "$top/build/docs"
mkdir -p "$top/build/docs"
cd "$top/build/docs"
antsibull-docs sphinx-init --use-current --fail-on-error --lenient --dest-dir . \
    --project ferry.vmware --title 'ferry.vmware' --html-short-title ferry.vmware ferry.vmware
# Offline: no inventories of other projects' documentation, so references into them stay text.
cat >>conf.py <<'END'

intersphinx_mapping = {}
suppress_warnings = ["ref.ref"]
html_static_path = ["static"]
html_css_files = ["ferry.css"]
END
mkdir static
cp "$top"/docs/docsite/static/ferry.css static/
chmod og-w rst # antsibull-docs wants it so
antsibull-docs --config-file antsibull-docs.cfg collection --cleanup everything --use-current --fail-on-error --dest-dir rst ferry.vmware
# antsibull-docs takes the guides' pages, and not what they show.
mkdir -p rst/collections/ferry/vmware/docsite/images
cp "$top"/docs/docsite/rst/images/*.svg rst/collections/ferry/vmware/docsite/images/
sphinx-build -M html rst . -c . -W --keep-going -q
ls "$PWD/html/index.html"
