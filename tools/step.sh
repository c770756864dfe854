#!/usr/bin/env bash
# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# tools/step.sh NAME COMMAND...: run one step with its output in build/logs/NAME.log; say in one line how it went and how
# long it took. A step that fails shows the end of its log; one that runs pytest shows pytest's closing line.
# V=1 shows everything while it runs.
set -uo pipefail
name=$1
shift
log=build/logs/$name.log
mkdir -p build/logs
begin=$EPOCHREALTIME
[ -t 1 ] && printf '  ...   %s\r' "$name"
if [ -n "${V:-}" ]; then
    printf '== %s\n' "$name"
    "$@" 2>&1 </dev/null | tee "$log"
else
    "$@" >"$log" 2>&1 </dev/null
fi
code=$?
end=$EPOCHREALTIME
seconds=$(((${end/[.,]/} - ${begin/[.,]/}) / 100000))
closing=$(sed -n 's/^=* *\([0-9]* \(passed\|failed\|skipped\|error\).* in [0-9.]*s[^=]*[^ =]*\) *=*$/\1/p' "$log" | tail -n 1)
word="ok  "
[ $code -eq 0 ] || word="FAIL"
printf '  %s  %-28s %5d.%d s  %s\n' "$word" "$name" $((seconds / 10)) $((seconds % 10)) "$closing"
if [ $code -ne 0 ]; then
    [ -n "${V:-}" ] || tail -n "${STEP_TAIL:-60}" "$log" | sed 's/^/    /'
    printf '  %s failed with code %d; all of it is in %s\n' "$name" $code "$log"
fi
exit $code
