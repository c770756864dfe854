# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What `make test` runs once everything is installed: quick things first, then the lab.

The tests' lab has ports and a folder of its own (build/lab-test), so that it does not meet the one a user works with.
It is made anew each time, starts in the background while lint and unit tests run, and is stopped at the end, whatever
happened. A failed step does not hide the others of its round, and no further round begins after it.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
LOGS = TOP / "build" / "logs"
QUICK = ("lint", "test-unit")
SLOW = ("sanity", "test-slow", "test-molecule", "test-lab-vcloud", "test-lab-vcenter")
#: Only where its API server has been built (make build-kubernetes), which takes minutes.
KUBERNETES = "test-kubernetes-short"
WITH_LAB = ("test-lab-others", "test-integration")
PYTEST_LOGS = ("unit", "unit-slow", "lab-tests", "lab-vcloud", "lab-vcenter")
CLOSING = re.compile(r"^=+ (.*\bpassed\b.*|.*\bfailed\b.*|.*\berrors?\b.*) =+$")


def make(*targets: str, lab: dict[str, str] | None = None) -> int:
    # Without MAKEFLAGS: this make is not a part of the one that called, and has its own way with -k.
    env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")} | (lab or {})
    return subprocess.run(["make", "-k", "--no-print-directory", *targets], cwd=TOP, env=env, check=False).returncode


class Lab:
    """The tests' own lab."""

    def __init__(self) -> None:
        self.env = {"FERRY_LAB_BASE": os.environ.get("FERRY_TEST_LAB_BASE", "21500"), "FERRY_LAB_DIR": str(TOP / "build" / "lab-test")}
        self.log = LOGS / "lab-up.log"
        self.starting: subprocess.Popen[bytes] | None = None

    def call(self, *words: str) -> list[str]:
        return [str(TOP / "build" / "venv" / "bin" / "python"), "-m", "tests.lab", *words]

    def start(self) -> None:
        """Wipe what the last run left, and start in the background."""
        env = os.environ | self.env
        with open(self.log, "wb") as out:
            subprocess.run(self.call("wipe"), cwd=TOP, env=env, stdout=out, stderr=out, check=False)
            self.starting = subprocess.Popen(self.call("up"), cwd=TOP, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out)

    def wait(self) -> bool:
        """True once it is up."""
        assert self.starting is not None
        code = self.starting.wait()
        print(f"  {'FAIL' if code else 'ok  '}  {'lab':28}       (started in the background; {self.log.relative_to(TOP)})", flush=True)
        if code:
            print("\n".join("    " + line for line in self.log.read_text(errors="replace").splitlines()[-40:]))
        return code == 0

    def stop(self) -> None:
        if self.starting is not None and self.starting.poll() is None:
            self.starting.wait()
        with open(self.log, "ab") as out:
            subprocess.run(self.call("down"), cwd=TOP, env=os.environ | self.env, stdout=out, stderr=out, check=False)


def kubernetes_is_built() -> bool:
    """Whether the lab's API server is there."""
    asked = "import sys; from tests.lab.kubernetes import programs; sys.exit(not all(p.exists() for p in programs().values()))"
    return subprocess.run([str(TOP / "build" / "venv" / "bin" / "python"), "-c", asked], cwd=TOP, check=False).returncode == 0


def closing(log: str) -> str:
    """The last line of pytest in a log."""
    try:
        lines = (LOGS / f"{log}.log").read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return "did not run"
    found = [line for line in lines if CLOSING.match(line)]
    return found[-1] if found else "pytest did not finish"


def main() -> int:
    # In the background of a script it is ignored, which tests of stopping would inherit: they would wait for ever.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    began = time.monotonic()
    LOGS.mkdir(parents=True, exist_ok=True)
    built = kubernetes_is_built()
    slow, logs = ((*SLOW, KUBERNETES), (*PYTEST_LOGS, "kubernetes")) if built else (SLOW, PYTEST_LOGS)
    for log in logs:
        (LOGS / f"{log}.log").unlink(missing_ok=True)
    lab, failed = Lab(), 0
    try:
        lab.start()
        failed = make(*QUICK)
        if not failed:
            failed = 0 if lab.wait() else 1
        if not failed:
            # The lab's tests wait for servers half of their time: the other slow ones, and those of vCloud, fit beside them.
            with ThreadPoolExecutor() as pool:
                failed = max(pool.map(lambda step: step(), (lambda: make(*WITH_LAB, lab=lab.env), lambda: make(*slow, lab=lab.env))))
    finally:
        lab.stop()
    print(f"\n{'FAILED' if failed else 'All passed'} after {time.monotonic() - began:.0f} s. The logs are in build/logs.")
    for log in logs:
        print(f"{log}:\n{closing(log)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
