# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The event source: what it tells, and that it loses and repeats nothing, whatever ends under it."""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.errors import Busy, ServerError
from tests.lab.common import LabError
from tests.lab.vcenter import VCenter
from tests.lab_tests.event_lab import GIB, Child, Listener, arguments, listening, until, vcenter_of
from tests.lab_tests.vcenter_lab import Client

# pyvmomi leaves its sockets to the garbage collector, also those whose session a restart of vCenter has ended
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
STORM = ["GeneralUserEvent"]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VCenter]:
    with vcenter_of(tmp_path_factory.mktemp("vcenter")) as one:
        yield one


@pytest.fixture
def lab(shared: VCenter) -> Iterator[VCenter]:
    """One vCenter for all; every host is up and the datastores are empty."""
    yield shared
    shared.clear()
    for host in ("esx1", "esx2"):
        with contextlib.suppress(LabError):  # it is not dead
            shared.post("/host/back", host=host)
    for datastore in ("shared", "spare"):
        shared.post("/datastore/fill", datastore=datastore, free=10 * GIB)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "state" / "mark.json"


def test_a_host_that_is_lost_and_comes_back(lab: VCenter, mark: Path) -> None:
    client = Client(lab)
    field = client.content.customFieldsManager.AddCustomFieldDef("ferry.group", None, None, None)
    esx = client.content.rootFolder.childEntity[0].hostFolder.childEntity[0].host
    for one in esx:
        client.content.customFieldsManager.SetField(one, field.key, "blades {{ 1 }}")
    client.close()
    with listening(arguments(lab, mark)) as source:
        lab.post("/host/die", host="esx1", vms="die")
        until(lambda: source.of("host_lost"))
        lab.post("/host/back", host="esx1")
        until(lambda: source.of("host_back") and len(source.of("event")) >= 2)
        (lost,), (back,) = source.of("host_lost"), source.of("host_back")
        assert lost["host"]["name"] == "esx1" and lost["cluster"]["name"] == "C0" and not lost["synthetic"]
        # a text of vCenter is never one that a playbook would evaluate
        assert lost["group"] == "blades (( 1 ))"
        assert back["host"]["moref"] == lost["host"]["moref"] and back["id"] != lost["id"]
        assert [e["type"] for e in source.of("event")] == ["HostConnectionLostEvent", "HostConnectedEvent"]
        assert lab.env()["VMWARE_PASSWORD"] not in json.dumps(source.events) + mark.read_text(encoding="utf-8")
    assert mark.stat().st_mode & 0o077 == 0


def test_a_datastore_that_swings_round_a_threshold_is_told_once(lab: VCenter, mark: Path) -> None:
    with listening(arguments(lab, mark, datastore_used=[80, 90], hysteresis=5)) as source:
        for used, events in ((81, 1), (79, 1), (84, 1), (91, 2), (87, 2), (92, 2), (83, 2), (70, 3)):
            lab.post("/datastore/fill", datastore="shared", free=10 * GIB * (100 - used) // 100)
            until(lambda n=events: len(source.of("datastore_filling", "datastore_relieved")) >= n)
            time.sleep(0.1)  # long enough for one too many
            assert len(source.of("datastore_filling", "datastore_relieved")) == events, used
        told = source.of("datastore_filling", "datastore_relieved")
        assert [(e["kind"], e["level"]) for e in told] == [("datastore_filling", 80), ("datastore_filling", 90), ("datastore_relieved", 0)]
        assert told[0]["datastore"]["name"] == "shared" and told[0]["datastore"]["used_percent"] == pytest.approx(81, abs=0.1)


def test_keys_that_begin_anew(lab: VCenter, mark: Path) -> None:
    """A vCenter that was restored: the mark is ahead of its keys."""
    args = arguments(lab, mark, events=STORM)
    with listening(args):
        pass
    said = json.loads(mark.read_text(encoding="utf-8"))
    lab.post("/events/storm", count=5, rate=10000)
    mark.write_text(json.dumps({**said, "key": said["key"] + 1_000_000}), encoding="utf-8")
    with listening(args) as source:
        until(lambda: len(source.texts()) == 5)
        lab.post("/events/storm", count=5, rate=10000)
        until(lambda: len(source.texts()) == 10)
    assert json.loads(mark.read_text(encoding="utf-8"))["key"] > said["key"]
    # nothing has happened since: what comes next is told all the same
    said = json.loads(mark.read_text(encoding="utf-8"))
    mark.write_text(json.dumps({**said, "key": said["key"] + 1_000_000}), encoding="utf-8")
    with listening(args) as source:
        lab.post("/events/storm", count=5, rate=10000)
        until(lambda: len(source.texts()) == 5)


@pytest.mark.fault(
    "vCenter restarts while the event source listens",
    "event source",
    "it logs in again and reads on: every event once, in order; what changed meanwhile is told as synthetic",
)
def test_a_restart_of_vcenter_loses_and_repeats_nothing(lab: VCenter, mark: Path) -> None:
    with listening(arguments(lab, mark, events=STORM)) as source:
        storm = threading.Thread(target=lab.post, args=("/events/storm",), kwargs={"count": 3000, "rate": 1500})
        storm.start()
        until(lambda: len(source.texts()) > 300)
        lab.restart(0.8)
        lab.post("/host/die", host="esx2", vms="die")
        storm.join()
        until(lambda: len(source.texts()) >= 3000 and source.of("host_lost"))
        assert source.texts() == [f"storm {i}" for i in range(1, 3001)]
        (lost,) = source.of("host_lost")
        assert lost["synthetic"] and lost["host"]["name"] == "esx2"
        lab.restart(0.3)
        lab.post("/host/back", host="esx2")
        until(lambda: source.of("host_back"))
        assert source.of("host_back")[0]["synthetic"]


@pytest.mark.fault("the session of the event source expires", "event source", "it logs in again and reads on: every event once")
def test_an_expired_session(lab: VCenter, mark: Path) -> None:
    with listening(arguments(lab, mark, events=STORM, wait=1)) as source:
        for n in range(3):
            lab.post("/events/storm", count=50, rate=10000)
            until(lambda n=n: len(source.texts()) == 50 * (n + 1))
            lab.fault("session_expire")
    assert source.texts() == [f"storm {i}" for i in range(1, 51)] * 3


@pytest.mark.fault(
    "the event source is killed in a storm",
    "event source",
    "the next one goes on: no event is left out, at most 100 are handed on again, with the same ids",
)
def test_a_killed_source_goes_on(lab: VCenter, mark: Path, tmp_path: Path) -> None:
    args = arguments(lab, mark, events=STORM)
    child = Child(args, tmp_path / "out.jsonl")
    until(mark.exists)
    storm = threading.Thread(target=lab.post, args=("/events/storm",), kwargs={"count": 2500, "rate": 1250})
    storm.start()
    kills = 0
    for limit in (400, 1200):
        until(lambda c=child, n=limit: len(set(c.texts())) >= n)
        child.kill()
        kills += 1
        child = Child(args, tmp_path / "out.jsonl")
    storm.join()
    try:
        until(lambda: len(set(child.texts())) == 2500)
    finally:
        child.kill()
    texts = child.texts()
    first = list(dict.fromkeys(texts))
    assert first == [f"storm {i}" for i in range(1, 2501)]
    assert len(texts) - len(first) <= 100 * kills


def test_what_happened_while_nobody_listened(lab: VCenter, mark: Path) -> None:
    args = arguments(lab, mark)
    with listening(args):
        pass
    lab.post("/host/die", host="esx1", vms="die")
    with listening(args) as source:
        until(lambda: source.of("host_lost") and source.of("event"))
    (lost,) = source.of("host_lost")
    assert lost["synthetic"] and not lost["again"]
    assert [e["type"] for e in source.of("event")] == ["HostConnectionLostEvent"]
    with listening(args) as source:  # told before: not again
        time.sleep(0.5)
        assert source.events == []
    with listening({**args, "sweep": "all"}) as source:
        until(lambda: source.events)
    assert [(e["kind"], e["id"], e["again"]) for e in source.events] == [("host_lost", lost["id"], True)]
    lab.post("/host/back", host="esx1")
    lab.post("/host/die", host="esx1", vms="die")
    with listening(args) as source:  # back and lost anew: another incident
        until(lambda: source.of("host_lost"))
    assert source.of("host_lost")[0]["id"] != lost["id"] and not source.of("host_back")
    lab.post("/host/back", host="esx1")
    with listening({**args, "sweep": "none"}) as source:
        until(lambda: source.of("event"))
        assert not source.of("host_back")


def test_a_state_that_lasts_is_told_again(lab: VCenter, mark: Path) -> None:
    with listening(arguments(lab, mark, remind=1)) as source:
        lab.post("/host/die", host="esx1", vms="die")
        until(lambda: len(source.of("host_lost")) >= 3)
        lab.post("/host/back", host="esx1")
        until(lambda: source.of("host_back"))
        told = source.of("host_lost")
        assert {e["id"] for e in told} == {told[0]["id"]} and [e["again"] for e in told][:3] == [False, True, True]


def test_a_storm_does_not_hold_up_a_host_that_is_lost(lab: VCenter, mark: Path) -> None:
    with listening(arguments(lab, mark, events=STORM)) as source:
        storm = threading.Thread(target=lab.post, args=("/events/storm",), kwargs={"count": 7000, "rate": 1_000_000})
        storm.start()
        until(lambda: source.texts())
        lab.post("/host/die", host="esx1", vms="die")
        storm.join()
        until(lambda: len(source.texts()) >= 7000 and source.of("host_lost"))
        kinds = [e["kind"] for e in source.events]
        assert kinds.index("host_lost") < len(kinds) - 1
        assert source.texts() == [f"storm {i}" for i in range(1, 7001)]


def test_nothing_is_read_ahead_of_a_rulebook_that_is_slow(lab: VCenter, mark: Path) -> None:
    with listening(arguments(lab, mark, events=STORM)) as source:
        source.gate.clear()
        lab.post("/events/storm", count=4000, rate=1_000_000)
        # a batch in the rulebook's hands, some in the queue, one at the door, of 100 events each: then it reads no more
        before, read = -1, 0
        while read != before:
            time.sleep(0.5)  # nothing tells that something does not happen
            before, read = read, lab.get("/stats")["methods"].get("ReadNextEvents", 0)
        source.gate.set()
        until(lambda: len(source.texts()) >= 4000)
        assert lab.get("/stats")["methods"]["ReadNextEvents"] > read
        assert source.texts() == [f"storm {i}" for i in range(1, 4001)]


@pytest.mark.fault("the event source's mark cannot be written", "event source", "events are handed on; the next mark tries again")
def test_a_mark_that_cannot_be_written(lab: VCenter, mark: Path, caplog: pytest.LogCaptureFixture) -> None:
    with listening(arguments(lab, mark, events=STORM)) as source:
        shutil.rmtree(mark.parent)
        lab.post("/events/storm", count=10, rate=10000)
        until(lambda: len(source.texts()) == 10)
        until(lambda: "cannot be written" in caplog.text)
        mark.parent.mkdir()
        lab.post("/events/storm", count=10, rate=10000)
        until(mark.exists)
        assert len(source.texts()) == 20


def test_what_no_waiting_mends_is_said_at_once(lab: VCenter, mark: Path) -> None:
    with pytest.raises(ServerError) as refused, listening(arguments(lab, mark, password="wrong")):
        pass
    assert refused.value.code == "login"
    with listening(arguments(lab, mark)):
        second = Listener(arguments(lab, mark))
        until(lambda: second.failure is not None)
        assert isinstance(second.failure, Busy)
        second.stop()


@pytest.mark.fault("vCenter is away when the event source starts", "event source", "it waits and begins when vCenter is there")
def test_a_vcenter_that_comes_up_later(lab: VCenter, mark: Path) -> None:
    lab.restart(1.0)
    with listening(arguments(lab, mark)) as source:
        lab.post("/host/die", host="esx1", vms="die")
        until(lambda: source.of("host_lost"))
