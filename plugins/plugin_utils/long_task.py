# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The base action class of every task that may take hours (design, section 9).

It starts the module of the same name in the background (whatever the connection plugin), reads the status file that the
module writes (see the data plane's progress.py), prints a line per disk every few seconds, and touches a lease. Without
that sign of life the module stops by itself. Each way in which this side can end has an answer:

=============================================  =========================================================================
Ctrl-C, SIGTERM                                our handlers stop the module (core 2.19 leaves without running C(finally))
SIGKILL of ansible-playbook                    C(getppid) changes: we stop the module
SIGKILL of all, the machine dies               nobody touches the lease: the module stops
the connection breaks                          reset and retry while the module goes on, up to the life of the lease
it breaks while the module starts              look for a live run of the same name; the module's own lock forbids two
a new ansible-playbook while one still runs    it attaches to the live run, which is named by VM, disks and target
=============================================  =========================================================================
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import signal
import time
from types import FrameType
from typing import Any, Mapping, NoReturn

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.ferry.vmware.plugins.module_utils.disk.metrics import FOLDER_VARIABLE
from ansible_collections.ferry.vmware.plugins.module_utils.disk.progress import LEASE_VARIABLE, STATUS_VARIABLE
from ansible_collections.ferry.vmware.plugins.plugin_utils.in_run import join_run
from ansible_collections.ferry.vmware.plugins.plugin_utils.progress_lines import (
    NAME_CELLS,
    cells,
    final_line,
    printable,
    running_line,
    title,
)
from ansible_collections.ferry.vmware.plugins.plugin_utils.report.live import Live

display = Display()

#: Life of a background job in seconds as core's async_wrapper wants one; a copy of many TiB may take weeks.
JOB_SECONDS = 10 * 365 * 86400
#: The module writes its file at least once a second; after so many seconds without a change we ask core's async_status.
STALE_SECONDS = 4.0
#: The pause between two such questions: each costs up to a second of processor time.
ASK_SECONDS = 3.0
#: Without any status file after so many seconds the module has probably ended at once (a wrong argument).
SILENT_SECONDS = 1.5
#: How often a lost connection is tried again while the module starts.
LAUNCH_TRIES = 5
#: No status file is larger; what is, is not ours.
MAX_STATUS = 1_000_000
#: Code of a run whose result another controller took; how often it is asked again.
TAKEN, TAKEN_TRIES = "taken", 5
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
#: What core adds to the result of a background job.
JOB_KEYS = ("ansible_job_id", "started", "finished", "results_file", "stdout", "stdout_lines", "stderr", "stderr_lines", "child_pid")


class Stopped(BaseException):
    """We are told to end. Not an Exception: connection plugins catch those."""


def _on_signal(number: int, frame: FrameType | None) -> NoReturn:
    for s in SIGNALS:
        signal.signal(s, signal.SIG_IGN)  # the clean-up below is short, and a second Ctrl-C must not cut it off
    raise Stopped(signal.Signals(number).name)


def parse_status(text: str) -> dict[str, Any] | None:
    """The status file's content, or None where it is empty, not yet there or not what the module writes."""
    if not text.strip() or len(text) > MAX_STATUS:
        return None
    try:
        status = json.loads(text)
    except ValueError:
        return None
    if not isinstance(status, dict) or not isinstance(status.get("pid"), int) or not isinstance(status.get("beat"), int):
        return None
    disks = status.get("disks")
    if status["pid"] <= 1 or not isinstance(disks, dict) or not all(isinstance(d, dict) for d in disks.values()):
        return None
    return status


class LongTask(ActionBase):
    """Base of the actions that run a module in the background. A subclass sets C(MODULE) and says what names a run."""

    #: Fully qualified name of the module to run.
    MODULE = ""
    #: Arguments that say what is worked on, not how: two calls that agree in them are the same run.
    IDENTITY: tuple[str, ...] = ()

    TRANSFERS_FILES = False
    _requires_connection = True
    _supports_check_mode = True
    _supports_async = False

    # -- for subclasses -----------------------------------------------------------------------------------------------

    def subject(self, args: Mapping[str, Any], task_vars: Mapping[str, Any]) -> str:
        """Whom the lines speak of."""
        return str(args.get("vm") or task_vars.get("inventory_hostname") or "")

    def identity(self, args: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """What names the run, besides the module. Never a secret."""
        return {key: args[key] for key in self.IDENTITY if args.get(key) is not None}

    # -- the action ---------------------------------------------------------------------------------------------------

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        task_vars = task_vars or {}
        if self._task.async_val:
            raise AnsibleActionFail(
                f"{self.MODULE} runs in the background by itself and shows its progress: take async and poll off this task. "
                "To do other things meanwhile, use strategy host_pinned or free."
            )
        result: dict[str, Any] = super().run(None, task_vars)
        args = dict(self._task.args)
        join_run(self._task, task_vars, self._templar)
        if self._task.check_mode:
            result.update(self._execute_module(module_name=self.MODULE, module_args=args, task_vars=task_vars))
            return result
        self._interval = self._seconds(args, "progress_interval", 5.0)
        self._lease = self._seconds(args, "lease_seconds", 120.0)
        self._subject = printable(self.subject(args, task_vars), 60)
        self._vars = task_vars
        self._shown: dict[str, str] = {}
        self._width = NAME_CELLS
        self._status: dict[str, Any] | None = None
        self._job: tuple[str, str] | None = None
        self._refused: list[str] = []
        self._parent = os.getppid()
        self._live = None if self._task.no_log else Live.of(task_vars, self._templar)
        old = {s: signal.signal(s, _on_signal) for s in SIGNALS}
        try:
            outcome = self._run(args)
            self._tidy()
            if self._live is not None:
                self._live.ended(outcome)
        except AnsibleConnectionFailure:
            raise  # nothing can be told to the other side; its lease ends it
        except BaseException as e:
            self._stop(e)  # also on the task's timeout, which is no Exception
            raise
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)
        for key in JOB_KEYS:
            outcome.pop(key, None)
        result.update(outcome)
        return result

    def _run(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """Start or join the run, and follow it to its end. Where another controller that followed it took its result, ask once more."""
        outcome: dict[str, Any] = {}
        for _try in range(TAKEN_TRIES):
            self._status, self._job = None, None
            self._begin(args)
            outcome = self._follow()
            if (outcome.get("failure") or {}).get("code") != TAKEN:
                break
            self._say("another controller that followed the same run has taken its result; asking again")
        return outcome

    @staticmethod
    def _seconds(args: Mapping[str, Any], key: str, default: float) -> float:
        value = args.get(key)
        try:
            seconds = default if value is None else float(value)
        except (TypeError, ValueError):
            raise AnsibleActionFail(f"{key} must be a number of seconds, got {str(value)[:50]!r}.") from None
        if not 0 <= seconds <= 86400 * 365:
            raise AnsibleActionFail(f"{key} must be a number of seconds from 0 to a year, got {seconds:g}.")
        return seconds

    def _say(self, text: str) -> None:
        if not self._task.no_log:
            display.display(f"  {self._subject}: {text}")

    def _pause(self, seconds: float) -> None:
        """Sleep, and notice the death of ansible-playbook within half a second."""
        end = time.monotonic() + seconds
        while True:
            if os.getppid() != self._parent:
                raise Stopped("ansible-playbook is gone")
            rest = end - time.monotonic()
            if rest <= 0:
                return
            time.sleep(min(rest, 0.5))

    # -- the other side -----------------------------------------------------------------------------------------------

    def _shell(self, command: str) -> tuple[int, str]:
        """Run C(command) on the target as the task's user. A broken connection raises AnsibleConnectionFailure."""
        raw = self._low_level_execute_command(command)
        return int(raw.get("rc", 0)), str(raw.get("stdout", ""))

    def _prepare(self, args: Mapping[str, Any]) -> dict[str, Any] | None:
        """Make the folder for status files, lay down the lease, and return the status of a run of this name, if any."""
        what = json.dumps(self.identity(args, self._vars), sort_keys=True, default=str)
        digest = hashlib.sha256(f"{self.MODULE} {self._subject} {what}".encode()).hexdigest()[:16]
        slug = re.sub(r"[^A-Za-z0-9_-]+", "_", self._subject)[:40]
        name = f"{self.MODULE.rpartition('.')[2]}-{slug}-{digest}.json"
        rc, out = self._shell(
            'umask 077; d=~/.ansible/ferry; mkdir -p "$d" && chmod 700 "$d" && cd "$d" || exit 1; pwd -P; '
            "find . -name '*.json*' ! -name '*.lock' -mtime +30 -exec rm -f {} + 2>/dev/null; "
            f"touch {name}.lease || exit 1; head -c {MAX_STATUS} {name} 2>/dev/null; exit 0"
        )
        folder, _newline, text = out.lstrip().partition("\n")
        folder = folder.strip()
        if rc != 0 or not folder.startswith("/"):
            raise AnsibleActionFail(f"The folder ~/.ansible/ferry for status files cannot be written on the target: {out.strip()[:300]}")
        self._file = f"{folder}/{name}"
        return parse_status(text)

    def _alive(self, status: Mapping[str, Any]) -> bool:
        """Whether the process that wrote C(status) still lives: its pid, with the same start where /proc tells it."""
        pid = int(status["pid"])
        rc, out = self._shell(f"kill -0 {pid} && {{ cat /proc/{pid}/stat 2>/dev/null || echo; }}")
        fields = out.rpartition(")")[2].split()
        if rc != 0:
            return False
        if len(fields) < 20:
            return True
        return fields[0] not in ("Z", "X") and status.get("start_time") in (0, None, int(fields[19]))

    def _begin(self, args: Mapping[str, Any]) -> None:
        """Attach to a live run of this name, or start one. A connection that breaks meanwhile is tried again."""
        tries = 0
        while True:
            try:
                status = self._prepare(args)
                if status is not None:
                    if self._attach(status):
                        return
                    old = str(status.get("job") or "")
                    self._shell(f"rm -f {shlex.quote(self._file)}" + (f" {shlex.quote(old)}" if old.startswith("/") else ""))
                self._launch(args)
                return
            except AnsibleConnectionFailure as e:
                tries += 1
                if tries >= LAUNCH_TRIES:
                    raise
                self._reconnect(e, tries)

    def _attach(self, status: dict[str, Any]) -> bool:
        """Follow the run that C(status) tells of, if it lives and is not about to stop; wait for one that is stopping."""
        end = time.monotonic() + 60
        while status.get("state") == "stopping" and self._alive(status):
            if time.monotonic() > end:
                raise AnsibleActionFail(f"An earlier run (process {status['pid']}) was told to stop and has not done so for 60 s.")
            self._pause(0.5)
        job = str(status.get("job") or "")
        if status.get("state") != "running" or not job.startswith("/") or not self._alive(status):
            return False
        self._job = (os.path.dirname(job), os.path.basename(job))
        self._status = status
        self._say(f"goes on with the run that is still alive (process {status['pid']})")
        return True

    def _launch(self, args: Mapping[str, Any]) -> None:
        """Start the module in the background."""
        self._connection._shell.tmpdir = None  # one left by a broken start is not to be trusted
        # As core itself hands ANSIBLE_ASYNC_DIR to the wrapper. Neither value holds anything that would be templated.
        environment = self._task.environment
        metrics = str(self._templar.template(self._vars.get("ferry_metrics_dir") or "") or "")
        wanted = {STATUS_VARIABLE: self._file, LEASE_VARIABLE: f"{self._lease:g}", **({FOLDER_VARIABLE: metrics} if metrics else {})}
        self._task.environment = [*(environment or []), wanted]
        self._task.async_val = JOB_SECONDS
        try:
            started = self._execute_module(module_name=self.MODULE, module_args=dict(args), task_vars=self._vars, wrap_async=True)
        finally:
            self._task.async_val = 0
            self._task.environment = environment
        if started.get("unreachable"):
            raise AnsibleConnectionFailure(str(started.get("msg", "unreachable")))
        jid = started.get("ansible_job_id")
        if not jid or started.get("failed"):
            said = started.get("module_stderr") or started.get("module_stdout") or ""
            raise AnsibleActionFail(
                f"{self.MODULE} could not be started in the background: {started.get('msg', 'no job')} {printable(said, 300)}".rstrip()
            )
        folder = os.path.dirname(str(started.get("results_file") or "")) or self.get_shell_option("async_dir", default="~/.ansible_async")
        self._job = (folder, str(jid))

    def _reconnect(self, error: Exception, tries: int) -> None:
        if tries == 1 or tries % 10 == 0:
            self._say(f"connection lost ({printable(error, 120)}); trying again")
        self._pause(min(10.0, 0.25 * 2**tries))
        # Made for a start whose answer never came: the job that did start removes it at its end.
        self._connection._shell.tmpdir = None
        try:
            self._connection.reset()
        except Exception as e:  # noqa: BLE001 - connection plugins raise what they like here, and not all can reset
            display.vv(f"{self._subject}: reset of the connection: {e}")

    # -- following ----------------------------------------------------------------------------------------------------

    def _follow(self) -> dict[str, Any]:
        """Show the status until the module has ended, and return its result."""
        began = fresh = time.monotonic()
        asked = lost_since = 0.0
        beat: int | None = None
        tries = ended = 0
        printed = -1e9
        while True:
            try:
                status = self._read()
                now = time.monotonic()
                if tries:
                    self._say(f"connection is back after {now - lost_since:.0f} s")
                    tries, lost_since = 0, 0.0
                if status is not None:
                    if status["beat"] != beat:
                        beat, fresh = status["beat"], now
                    if status.get("metrics") and not (self._status or {}).get("metrics"):
                        display.warning(f"{self._subject}: figures for Prometheus cannot be written: {printable(status['metrics'], 300)}")
                    self._status = status
                    self._join(status)
                    if self._live is not None:
                        self._live.progress(status)
                    over = status.get("state") in ("done", "failed")
                    if over or (self._interval and now - printed >= self._interval - 0.1 and status["disks"]):
                        printed = now
                        self._show(status)
                else:
                    over = False
                silent = status is None and now - began > SILENT_SECONDS
                if over or ((silent or now - fresh > STALE_SECONDS) and now - asked > ASK_SECONDS):
                    asked = now
                    outcome = self._ask()
                    if outcome is not None:
                        return outcome
                    ended += over
                    if (not over or ended > 50) and self._status is not None and not self._alive(self._status):
                        outcome = self._ask()  # it may have ended between the two questions
                        return outcome if outcome is not None else self._vanished()
            except AnsibleConnectionFailure as e:
                now = time.monotonic()
                tries += 1
                lost_since = lost_since or now
                if now - lost_since > max(self._lease, 60):
                    left = f"It stops by itself within {self._lease:g} s. " if self._lease else "It goes on. "
                    raise AnsibleConnectionFailure(
                        f"{self._subject}: the connection was lost while {self.MODULE} was running. {left}Run the same command again: {e}"
                    ) from e
                self._reconnect(e, tries)
                continue
            if over:
                self._pause(min(ASK_SECONDS, 0.2 * ended))  # the module may have volumes to detach after its last figure
            elif now - began < 10:
                self._pause(min(0.5 if now - began < 2 else 1.0, self._interval or 1.0))
            else:
                self._pause(min(self._interval or 5.0, max(1.0, self._lease / 4) if self._lease else 3600.0))

    def _join(self, status: Mapping[str, Any]) -> None:
        """Two starts of one run at the same time: the module's lock let the other one through, so its job is ours too."""
        folder, name = os.path.split(str(status.get("job") or ""))
        if self._job is None or not folder.startswith("/") or name == self._job[1]:
            return
        self._say(f"goes on with a run that was started at the same time (process {status['pid']})")
        self._refused.append("/".join(self._job))
        self._job = (folder, name)

    def _read(self) -> dict[str, Any] | None:
        """Touch the lease (never create it: it may have been withdrawn) and read the status file."""
        name = shlex.quote(self._file)
        return parse_status(self._shell(f"touch -c {name}.lease; head -c {MAX_STATUS} {name} 2>/dev/null; exit 0")[1])

    def _show(self, status: Mapping[str, Any]) -> None:
        """One call for all disks of this task, so that forks do not mix; a disk that is done is shown once."""
        if not self._interval or self._task.no_log:
            return
        unit = str(status.get("unit") or "bytes")
        subject = printable(status.get("name") or self._subject)
        lines = []
        for label in status["disks"]:
            self._width = max(self._width, min(60, cells(title(subject, label))))
        for label, facts in status["disks"].items():
            running = facts.get("state") == "running"
            line = (running_line if running else final_line)(subject, label, facts, unit, self._width)
            if self._shown.get(label) != line:
                lines.append(line)
                self._shown[label] = line
        if lines:
            display.display("\n".join(lines))

    def _ask(self) -> dict[str, Any] | None:
        """The module's result by core's async_status, or None while it runs. An answer without C(finished) is an error."""
        if self._job is None:
            return None
        folder, jid = self._job
        question = {"jid": jid, "mode": "status", "_async_dir": folder}
        poll: dict[str, Any] = self._execute_module(module_name="ansible.builtin.async_status", module_args=question, task_vars=self._vars)
        if poll.get("unreachable"):
            raise AnsibleConnectionFailure(str(poll.get("msg", "unreachable")))
        if poll.get("failed") and "finished" not in poll:
            raise AnsibleActionFail(f"The state of job {jid} of {self.MODULE} could not be read: {poll.get('msg')}")
        if not poll.get("finished"):
            return None
        if poll.get("failed") and poll.get("msg") == "could not find job":
            said = f"The result of {self.MODULE} is gone: another ansible-playbook that followed the same run took it."
            return {"failed": True, "changed": True, "msg": f"{said} Next: the same command again.", "failure": {"code": TAKEN}}
        if poll.get("failed") and "data" in poll and not str(poll["data"]).strip():
            return self._vanished()  # async_wrapper's way to say that the module ended without a word
        return poll

    def _vanished(self) -> dict[str, Any]:
        status = self._status or {}
        return {
            "failed": True,
            "changed": True,
            "msg": f"The process of {self.MODULE} for {self._subject} ended without a result (killed, out of memory, or the machine "
            "restarted). What it copied stays and is used again. Next: the same command again.",
            "failure": {"code": "vanished", "vm": self._subject, "details": {"pid": status.get("pid"), "done": status.get("done")}},
        }

    # -- the end ------------------------------------------------------------------------------------------------------

    def _of_ours(self) -> str:
        """A shell's condition: the status file is of the run that we followed. Another controller may have begun the next one by now."""
        return f"""grep -q '"pid": *{int(self._status["pid"])}[,}}]' {shlex.quote(self._file)}""" if self._status is not None else "true"

    def _tidy(self) -> None:
        names = [self._file, f"{self._file}.lease", f"{self._file}.tmp"]
        jobs = ["/".join(self._job), *self._refused] if self._job and self._job[0].startswith("/") else []
        try:
            remove = f"rm -f {' '.join(map(shlex.quote, jobs))}; " if jobs else ""
            self._shell(f"{remove}if {self._of_ours()}; then rm -f {' '.join(map(shlex.quote, names))}; fi; exit 0")
        except AnsibleConnectionFailure as e:
            display.vv(f"{self._subject}: status files are left: {e}")  # the next run of this name takes them away

    def _stop(self, reason: BaseException) -> None:
        """Tell the module to stop: by signal where its process is known, else by taking its lease away."""
        if not hasattr(self, "_file"):
            return
        name = shlex.quote(self._file)
        try:
            status = parse_status(
                self._shell(f"if {self._of_ours()}; then rm -f {name}.lease; head -c {MAX_STATUS} {name} 2>/dev/null; fi; exit 0")[1]
            )
            if status is not None and status.get("state") in ("running", "stopping") and self._alive(status):
                pid = int(status["pid"])
                self._shell(f"kill -TERM {pid}; i=0; while kill -0 {pid} 2>/dev/null && [ $i -lt 50 ]; do sleep 0.1; i=$((i+1)); done")
                self._say(f"{reason}: process {pid} was told to stop; the same command goes on from there")
        except Exception as e:  # noqa: BLE001 - whatever the connection raises: we are on our way out, and the lease ends the module
            display.vv(f"{self._subject}: could not stop {self.MODULE}: {e}")
