# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an event source tells of events and states, where it keeps its place, and what arguments it takes."""

from __future__ import annotations

import json
import os
from datetime import datetime, timezone
from pathlib import Path

import pytest
from pyVmomi import vim

from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput, Busy, FerryError
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.event_feed import options_of
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.event_model import (
    Mark,
    States,
    Thing,
    Thresholds,
    Told,
    fresh,
    inert,
    shape,
)
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.event_store import MarkFile, default_path

VCENTER = {"name": "vc", "uuid": "u"}
NOON = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)
CONNECTION = {"hostname": "vc.example", "username": "u", "password": "p"}


def event(key: int, second: int = 0, kind: type = vim.event.GeneralUserEvent, **more: object) -> vim.event.Event:
    return kind(key=key, chainId=key, createdTime=NOON.replace(second=second), userName="me", fullFormattedMessage="m", **more)


def host(connection: str, **more: object) -> Thing:
    return Thing("host-1", "esx1", connection=connection, cluster="C0", **more)  # type: ignore[arg-type]  # fields of Thing


def store(used: float, **more: object) -> Thing:
    return Thing("ds-1", "ds", capacity=1000, free=int(1000 - 10 * used), **more)  # type: ignore[arg-type]  # fields of Thing


def test_an_event_keeps_its_id_and_what_it_names() -> None:
    of = vim.event.VmEventArgument(name="web{{ 1 }}", vm=vim.VirtualMachine("vm-7"))
    shaped = shape(event(5, message="hello\nyou", vm=of), VCENTER)
    assert shaped["id"] == "u:5:2026-01-01T12:00:00.000Z" == shape(event(5), VCENTER)["id"]
    assert shaped["vm"] == {"name": "web(( 1 ))", "moref": "vm-7"}
    assert shaped["data"] == {"message": "hello you"} and shaped["type"] == "GeneralUserEvent"
    assert json.loads(json.dumps(shaped)) == shaped


def test_an_extended_event_has_the_type_that_filters_know() -> None:
    special = event(1, kind=vim.event.EventEx, eventTypeId="esx.problem.storage.connectivity.lost")
    assert shape(special, VCENTER)["type"] == "esx.problem.storage.connectivity.lost"


@pytest.mark.parametrize("text", ["{{ lookup('pipe', 'id') }}", "{% for x in y %}", "{# c #}", "a" * 5000, "line\nline"])
def test_no_text_can_be_a_template_or_large(text: str) -> None:
    told = inert(text)
    assert not set("{}\n") & set(told) and len(told) <= 300


def test_fresh_events_come_once_and_in_order() -> None:
    mark = Mark("u", 3, "2026-01-01T12:00:03.000Z")
    events = [event(5), event(3), event(4), event(2)]
    assert [e.key for e in fresh(events, mark)] == [4, 5]
    # keys began anew: the time counts
    assert [e.key for e in fresh([event(1, 2), event(2, 4)], mark, anew=True)] == [2]


def test_a_host_is_told_once_until_it_is_back() -> None:
    states = States(Mark(), Thresholds(), VCENTER)
    assert states.host(host("connected"), "t0") is None
    lost = states.host(host("notResponding"), "t1")
    assert lost is not None and lost["kind"] == "host_lost" and lost["group"] == "C0"
    assert states.host(host("notResponding"), "t2") is None
    assert states.host(host("disconnected"), "t3") is None  # somebody did that: neither lost nor back
    assert [s["id"] for s in states.again([host("notResponding")], "t4")] == [lost["id"]]
    back = states.host(host("connected", group="blades"), "t5")
    assert back is not None and back["kind"] == "host_back" and back["group"] == "blades"
    assert states.again([host("connected")], "t6") == [] and states.host(host("connected"), "t7") is None


def test_a_host_that_was_disconnected_by_somebody_is_not_lost() -> None:
    assert States(Mark(), Thresholds(), VCENTER).host(host("disconnected"), "t") is None


def test_a_host_that_was_back_in_between_is_lost_anew() -> None:
    mark = Mark("u", hosts={"host-1": Told("host_lost:host-1:t1", "t1", "esx1")})
    states = States(mark, Thresholds(), VCENTER)
    argument = vim.event.HostEventArgument(name="esx1", host=vim.HostSystem("host-1"))
    states.was_back([event(1, kind=vim.event.HostConnectedEvent, host=argument)])
    lost = states.host(host("notResponding"), "t2", synthetic=True)
    assert lost is not None and lost["since"] == "t2" and lost["synthetic"]
    assert states.host(host("notResponding"), "t3") is None


def test_hysteresis() -> None:
    states = States(Mark(), Thresholds((80.0, 90.0), 5.0), VCENTER)
    told = [states.datastore(store(used), f"t{n}") for n, used in enumerate((79, 80, 76, 84, 90, 86, 84, 91, 76, 75, 80))]
    assert [(s["kind"], s["level"]) if s else None for s in told] == [
        None,
        ("datastore_filling", 80),
        None,
        None,
        ("datastore_filling", 90),
        None,
        None,  # below 90 less 5: the level is 80 again, which was told
        ("datastore_filling", 90),
        None,
        ("datastore_relieved", 0),
        ("datastore_filling", 80),
    ]


@pytest.mark.parametrize("thing", [store(99, accessible=False), Thing("ds-1", "ds")])
def test_a_datastore_that_says_nothing_of_its_space(thing: Thing) -> None:
    mark = Mark("u", datastores={"ds-1": Told("x", "t", "ds", 85.0)})
    assert States(mark, Thresholds(), VCENTER).datastore(thing, "t") is None


def test_what_is_gone_from_the_inventory_is_forgotten() -> None:
    states = States(Mark("u", hosts={"host-1": Told("x", "t", "esx1")}), Thresholds(), VCENTER)
    states.gone("host-1")
    assert states.marked(Mark()).hosts == {}


def test_the_mark_survives(tmp_path: Path) -> None:
    file = MarkFile(tmp_path / "a" / "b.json")
    assert file.load() is None
    mark = Mark("u", 7, "t", {"host-1": Told("i", "s", "名前")}, {"ds-1": Told("j", "s", "ds", 85.0)})
    file.save(mark)
    assert file.load() == mark and file.path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in file.path.parent.iterdir()] == ["b.json"]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"version": 2}', '{"version": 1, "vcenter": "", "key": "x", "time": "", "hosts": {}, "datastores": {}}']
)
def test_a_mark_that_is_none_is_not_thrown_away(tmp_path: Path, text: str) -> None:
    file = MarkFile(tmp_path / "m.json")
    file.path.write_text(text, encoding="utf-8")
    with pytest.raises(BadInput) as said:
        file.load()
    assert said.value.code == "mark" and file.path.read_text(encoding="utf-8") == text


def test_one_source_has_the_mark(tmp_path: Path) -> None:
    file = MarkFile(tmp_path / "m.json")
    with file.held(), pytest.raises(Busy), MarkFile(file.path).held():
        pass
    with file.held():
        pass


def test_a_mark_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    file = MarkFile(tmp_path / "x" / "m.json")
    os.rmdir(file.path.parent)
    with pytest.raises(FerryError) as said:
        file.save(Mark())
    assert said.value.code == "mark"


def test_marks_of_two_vcenters_do_not_meet() -> None:
    names = {default_path(h, p) for h, p in (("a", 443), ("a", 444), ("A/../b", 443), ("あ", 443), ("い", 443))}
    assert len(names) == 5 and all(n.parent == default_path("a", 1).parent for n in names)


def test_arguments_and_environment() -> None:
    options, path = options_of({**CONNECTION, "datastore_used": [90, 80], "remind": "30", "state_file": "~/x"}, {"VMWARE_PORT": "8443"})
    assert options.connection["port"] == 8443 and options.thresholds.used == (80, 90) and options.remind == 30
    assert path == Path("~/x").expanduser()
    options, path = options_of({"eda_feedback_queue": None}, {"VMWARE_HOST": "h", "VMWARE_USER": "u", "VMWARE_PASSWORD": "p"})
    assert path == default_path("h", 443) and options.sweep == "new" and options.remind == 0
    assert options_of({**CONNECTION, "validate_certs": "no", "datastore_used": []}, {})[0].connection["validate_certs"] is False


def test_every_wrong_argument_is_told_at_once() -> None:
    wrong = {"port": "x", "validate_certs": 7, "events": [], "datastore_used": [120], "hysteresis": "h", "sweep": "some"}
    more = {"remind": -1, "wait": 0, "state_file": 3, "nonsense": 1}
    with pytest.raises(BadInput) as said:
        options_of({**CONNECTION, **wrong, **more}, {})
    assert all(name in said.value.message for name in (*wrong, *more))
    with pytest.raises(BadInput):
        options_of({}, {})
