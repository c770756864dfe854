#!/usr/bin/env bash
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# gofmt and go vet over the lab's Go modules, with the compiler that the lab uses.
set -euo pipefail
top=$(cd "$(dirname "$0")/.." && pwd)
cd "$top"
go=$(build/venv/bin/python -c 'from tests.lab import vcenter; print(vcenter.go())')
git ls-files -co --exclude-standard '*go.mod' | while IFS= read -r module; do
    cd "$top/$(dirname "$module")"
    [ -n "$(find . -name '*.go' -print -quit)" ] || continue # one that only names the versions of programs
    unformatted=$("$(dirname "$go")/gofmt" -l .)
    [ -z "$unformatted" ] || { printf 'gofmt would change:\n%s\n' "$unformatted"; exit 1; }
    "$go" vet ./...
done
