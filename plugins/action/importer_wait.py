# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Watches an importer in a cluster until a wave is over, and prints how far each VM and disk is. It changes nothing: who stops it stops the
watching, and the importer goes on."""

from __future__ import annotations

import time
from typing import Any, Mapping

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.ferry.vmware.plugins.plugin_utils.kubernetes import harvester, lines, state
from ansible_collections.ferry.vmware.plugins.plugin_utils.progress_lines import printable
from ansible_collections.ferry.vmware.plugins.plugin_utils.report.live import Live

display = Display()

FORKLIFT = "forklift.konveyor.io/v1beta1"
IMPORTER = "migration.harvesterhci.io/v1beta1"
#: What a token that is no longer good answers: waiting would not help.
REFUSED = "Unauthorized"
ENDS = ("succeeded", "failed", "canceled")
#: How the options of the cluster are called where they are used.
CONNECTION = {name: name for name in ("host", "api_key", "kubeconfig", "context", "validate_certs")} | {"ca_path": "ca_cert"}
Object = dict[str, Any]


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _VALID_ARGS = frozenset(
        ("importer", "namespace", "name", "stops", "parts", "interval", "timeout", "settle", "kubernetes", "hosts", "shutdown_timeout")
    )
    _requires_connection = True
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        task_vars = task_vars or {}
        result: dict[str, Any] = super().run(None, task_vars)
        args = dict(self._task.args)
        importer = args.get("importer")
        if importer not in ("mtv", "harvester") or not args.get("namespace") or not args.get("name"):
            raise AnsibleActionFail("importer (mtv or harvester), namespace and name are required")
        if self._task.check_mode:
            return {**result, "changed": False, "state": "", "result": {}}
        self._args = args
        self._vars = task_vars
        self._lines = lines.Lines()
        self._lives: dict[str, Live | None] = {}
        self._away = ""
        found = self._forklift() if importer == "mtv" else self._harvester()
        self._close(found["result"])
        return {**result, "changed": False, **found}

    def _seconds(self, key: str, default: float) -> float:
        try:
            seconds = float(self._args.get(key) or default)
        except (TypeError, ValueError):
            raise AnsibleActionFail(f"{key} has to be a number of seconds, and is {str(self._args[key])[:40]!r}") from None
        if not 0 < seconds <= 10 * 365 * 86400:
            raise AnsibleActionFail(f"{key} has to be more than 0 seconds and at most ten years, and is {seconds:g}")
        return seconds

    def _read(self, **what: Any) -> list[Object] | None:
        """Objects; None where the server does not answer. A token that is refused is an error at once."""
        cluster = self._args.get("kubernetes") or {}
        asked = {CONNECTION[key]: value for key, value in cluster.items() if key in CONNECTION and value is not None}
        args = {**asked, "namespace": self._args["namespace"], **what}
        answer = self._execute_module(module_name="kubernetes.core.k8s_info", module_args=args, task_vars=self._vars)
        if not answer.get("failed"):
            if self._away:
                display.display(f"  {self._args['name']}: the cluster answers again")
                self._away = ""
            return list(answer.get("resources") or [])
        said = printable(answer.get("msg") or answer.get("module_stderr") or "no answer", 500)
        if REFUSED in said:
            raise AnsibleActionFail(
                f"{self._args['name']} in {self._args['namespace']} goes on in the cluster, but its end was not seen: the cluster refuses the"
                f" token ({said}). Next: a new token, then the same command again; it joins what runs."
            )
        if not self._away:
            display.display(f"  {self._args['name']}: the cluster does not answer; trying again ({printable(said, 160)})")
        self._away = said
        return None

    def _show(self, rows: list[tuple[str, Mapping[str, Any]]]) -> None:
        """C(rows): by which name of the inventory's a VM goes, and how it is."""
        told = []
        for host, row in rows:
            name = str(row.get("name") or row.get("vm"))
            disks = self._lines.rated(name, lines.status_of(row))
            told.append((name, disks))
            live = self._live(host)
            if live is not None and set(disks) != {""}:
                live.progress({"disks": disks, "name": name, "unit": "bytes"})
            elif live is not None:
                live.beat()
        news = [] if self._task.no_log else self._lines.of(told)
        if news:
            # One call, so that forks do not mix.
            display.display("\n".join(news))

    def _live(self, host: str) -> Live | None:
        """The report on a VM, where one is wanted and the VM is known."""
        if not host:
            return None
        if host not in self._lives:
            self._lives[host] = None if self._task.no_log else Live.of({**self._vars, "inventory_hostname": host}, self._templar)
        return self._lives[host]

    def _host(self, row: Mapping[str, Any]) -> str:
        hosts = self._args.get("hosts") or {}
        return str(next((hosts[row[key]] for key in ("id", "source_name", "vm", "name") if row.get(key) in hosts), ""))

    def _close(self, result: Mapping[str, Any]) -> None:
        for row in result.get("vms") or result.get("rows") or []:
            live = self._lives.get(self._host(row))
            if live is not None:
                failed = row.get("failed") or row["state"] in ("failed", "canceled")
                live.phase("", "failed" if failed else "end")

    # -- Forklift -------------------------------------------------------------------------------------------------------

    def _forklift(self) -> dict[str, Any]:
        interval, settle = self._seconds("interval", 10), self._seconds("settle", 30)
        timeout = self._seconds("timeout", 172800)
        began, blocked = time.monotonic(), 0.0
        stops = (*ENDS, *(self._args.get("stops") or ()))
        while True:
            found = self._read(api_version=FORKLIFT, kind="Migration", name=self._args["name"])
            now = time.monotonic()
            if found == []:
                return {"state": "gone", "result": {}}
            if found:
                how = state.migration({}, found[0])
                self._show([(self._host(row), row) for row in how["vms"]])
                blocked = (blocked or now) if how["state"] == "blocked" else 0.0
                # A condition that blocks may be of before.
                if how["state"] in stops or (blocked and now - blocked >= settle):
                    return {"state": how["state"], "result": how}
            if now - began > timeout:
                raise AnsibleActionFail(
                    f"The migration {self._args['name']} in {self._args['namespace']} goes on in the cluster, but its end was not seen"
                    f" within {timeout:g} s{': ' + self._away if self._away else ''}. Next: run the same command again; it joins what runs."
                )
            time.sleep(interval)  # between two looks, as the user has set it

    # -- Harvester ------------------------------------------------------------------------------------------------------

    def _harvester(self) -> dict[str, Any]:
        """Part by part, since the importer itself gives up nowhere."""
        interval, shutdown = self._seconds("interval", 10), self._seconds("shutdown_timeout", 315_360_000)
        asked: dict[str, float] = {}
        how: dict[str, Any] = {}
        for part in self._args.get("parts") or []:
            within, began = float(part["within"]), time.monotonic()
            while True:
                how = self._imports() or how
                if how and how["least"] >= int(part["reaches"]):
                    break
                now = time.monotonic()
                asked = {row["name"]: asked.get(row["name"], now) for row in how.get("rows") or [] if row["shutting_down"]}
                slow = [name for name, since in asked.items() if now - since > shutdown]
                if slow:
                    raise AnsibleActionFail(
                        f"The guest of {', '.join(slow)} did not shut down within {shutdown:g} s. The import waits for it in the cluster, and"
                        " goes on as soon as it has. Next: shut it down by hand, then run the same command again; ferry_on_timeout: poweroff"
                        " would pull its plug."
                    )
                if time.monotonic() - began > within:
                    said = self._away or "; ".join(how.get("lines") or ["nothing is known of it"])
                    raise AnsibleActionFail(
                        f"The importer did not {part['what']} within {within:g} s: {said}. It may go on in the cluster. Next: look at the log"
                        " of the vm-import-controller in harvester-system; the same command again joins what goes on."
                    )
                time.sleep(interval)  # the same
        return {"state": "ended", "result": how}

    def _imports(self) -> dict[str, Any]:
        """How the imports are; empty where the server does not answer."""
        label = f"{harvester.LABEL}={self._args['name']}"
        found = self._read(api_version=IMPORTER, kind="VirtualMachineImport", label_selectors=[label])
        if found is None:
            return {}
        images: list[Object] = []
        if any((one.get("status") or {}).get("importStatus") == "diskImageSubmitted" for one in found):
            images = self._read(api_version="harvesterhci.io/v1beta1", kind="VirtualMachineImage") or []
        how = harvester.progress(found, images)
        self._show([(self._host(row), {**row, "name": row["vm"] or row["name"], "step": row["state"]}) for row in how["rows"]])
        return how
