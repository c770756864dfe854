# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a policy may say, and what it decides."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.ferry.vmware.plugins.module_utils.errors import BadInput
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.policy_decision import (
    Event,
    Incident,
    Journal,
    Now,
    begun,
    decide,
    read_event,
    short,
)
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.policy_journal import (
    read_incidents,
    read_journal,
    write_incidents,
    write_journal,
)
from ansible_collections.ferry.vmware.plugins.module_utils.vsphere.policy_model import MOST_ACTIONS, MOST_PER_HOUR, Policy, read_policy

NOW = 1_000_000.0
LOST = Event("id-1", "host_lost", "host_lost", "esx1 does not answer", "blades", {"host": "esx1", "cluster": "C0"}, "HostSystem", "host-1")
FULL = Event("id-2", "datastore_filling", "datastore_filling", "full", "", {"datastore": "shared"}, "Datastore", "ds-1")
DEAD = Now("notResponding")


def rule(**more: Any) -> dict[str, Any]:
    return {"name": "r", "event": "host_lost", "actions": [{"failover": {"unfenced": True}}], **more}


def policy(*rules: dict[str, Any], **more: Any) -> Policy:
    return read_policy({"rules": list(rules) or [rule()], **more})


def suppressed(
    found: Policy, event: Event = LOST, now: Now = DEAD, journal: Journal | None = None, incident: Incident | None = None
) -> Any:
    return decide(found, event, now, journal or Journal(), incident, NOW).suppressed


def test_everything_that_a_policy_may_say() -> None:
    actions = [
        {"failover": {"fence_tasks": "fence.yml", "unfenced": False, "cluster": "C1", "at_once": 4}},
        {"evacuate": {"partial": True, "maintenance": False, "powered_off": False}, "after": "failed"},
        {"come_back": None},
        {"relieve": {"target_percent": 70, "datastores": ["a"], "at_once": 1}},
        {"restore": "weekdays"},
        {"tasks": "page.yml", "after": "always"},
        {"wait": 30},
    ]
    when = {
        "group": ["esx*", "blades"],
        "cluster": "C0",
        "host": "*",
        "min_percent": 90,
        "type": "*",
        "message": "*",
        "vm": "*",
        "datastore": "*",
    }
    full = rule(
        event=["host_lost", "host_back"],
        when=when,
        settle=60,
        lease=600,
        attempts=2,
        in_maintenance=True,
        limits={"actions_per_hour": 7, "hold": 3600},
        actions=actions,
    )
    found = policy(full, maintenance=["old*"], limits={"actions_per_hour": 20})
    (only,) = found.rules
    assert [a.name for a in only.actions] == ["failover", "evacuate", "come_back", "relieve", "restore", "tasks", "wait"]
    assert only.actions[6].as_dict() == {"action": "wait", "after": "ok", "seconds": 30}
    assert only.conditions["group"] == ("esx*", "blades") and only.limits.hold == 3600 and found.limits.per_hour == 20


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ([], "is to be a table"),
        ({}, "policy.rules"),
        ({"rules": []}, "1 to 100 rules"),
        ({"rules": [rule()], "extra": 1}, "there is no extra"),
        ({"rules": [rule(), rule()]}, "several called r"),
        ({"rules": [rule(event="nothing")]}, "there is no nothing"),
        ({"rules": [rule(actions=[])]}, "1 to 30 actions"),
        ({"rules": [rule(actions=[{"wait": 1}] * (MOST_ACTIONS + 1))]}, "1 to 30 actions"),
        ({"rules": [rule(actions=[{"explode": {}}])]}, "there is no explode"),
        ({"rules": [rule(actions=[{"wait": 1, "failover": {}}])]}, "not 2 of them"),
        ({"rules": [rule(actions=[{"failover": {"unfenced": "yes"}}])]}, "failover.unfenced"),
        ({"rules": [rule(actions=[{"failover": {"at_once": True}}])]}, "failover.at_once"),
        ({"rules": [rule(actions=[{"tasks": {}}])]}, "file is missing"),
        ({"rules": [rule(actions=[{"wait": 99999}])]}, "wait.seconds"),
        ({"rules": [rule(actions=[{"relieve": {"target_percent": 100}}])]}, "target_percent"),
        ({"rules": [rule(actions=[{"wait": 1, "after": "sometimes"}])]}, "after: is one of"),
        ({"rules": [rule(actions=[{True: "ok", "wait": 1}])]}, "there is no True"),
        ({"rules": [rule(limits={"actions_per_hour": MOST_PER_HOUR + 1})]}, "actions_per_hour"),
        ({"rules": [rule(limits={"hold": True})]}, "limits.hold"),
        ({"rules": [rule(settle=601)]}, "settle"),
        ({"rules": [rule(when={"group": []})]}, "when.group: is empty"),
        ({"rules": [rule(when={"min_percent": "a"})]}, "min_percent"),
        ({"rules": [rule(name="")]}, "name"),
        ({"rules": [rule()], "maintenance": [1]}, "maintenance"),
    ],
)
def test_what_it_may_not_say(wrong: Any, words: str) -> None:
    with pytest.raises(BadInput) as said:
        read_policy(wrong)
    assert said.value.code == "policy" and any(words in p for p in said.value.details["problems"])


def test_every_mistake_is_told_at_once() -> None:
    with pytest.raises(BadInput) as said:
        read_policy(
            {"rules": [rule(event="x", settle=-1, lease="l", attempts=0, in_maintenance=1, when={"y": 1}, actions=[{"wait": "z"}])]}
        )
    assert len(said.value.details["problems"]) == 7


def test_the_first_rule_that_matches_decides() -> None:
    found = policy(rule(name="a", when={"group": "other"}), rule(name="b", when={"group": "BLADES", "host": "esx?"}), rule(name="c"))
    assert decide(found, LOST, DEAD, Journal(), None, NOW).rule == found.rules[1]
    assert suppressed(found) is None and suppressed(found, FULL) == "no_rule"
    assert suppressed(policy(rule(when={"vm": "*"}))) == "no_rule"  # the event names no VM


@pytest.mark.parametrize(
    ("event", "now", "why"),
    [
        (LOST, Now("connected"), "over"),
        (LOST, Now("disconnected"), "over"),
        (LOST, Now(there=False), "over"),
        (replace(LOST, kind="host_back"), Now("notResponding"), "over"),
        (replace(LOST, kind="host_back"), Now("connected"), None),
        (LOST, Now("notResponding", maintenance=True), "maintenance"),
        (FULL, Now(used_percent=89.0), "no_rule"),
        (FULL, Now(used_percent=90.0), None),
        (FULL, Now(used_percent=None), "no_rule"),
    ],
)
def test_what_is_so_now_counts(event: Event, now: Now, why: str | None) -> None:
    found = policy(rule(event=["host_lost", "host_back"]), rule(name="f", event="datastore_filling", when={"min_percent": 90}))
    assert suppressed(found, event, now) == why


def test_maintenance() -> None:
    resting = Now("notResponding", maintenance=True)
    assert suppressed(policy(rule(in_maintenance=True)), now=resting) is None
    assert suppressed(policy(maintenance=True)) == "maintenance"
    assert suppressed(policy(maintenance=True), replace(LOST, group="")) == "maintenance"
    assert suppressed(policy(maintenance=["blade*"])) == "maintenance"
    assert suppressed(policy(maintenance=["others"])) is None
    assert suppressed(policy(rule(in_maintenance=True), maintenance=["blades"]), now=resting) == "maintenance"


@pytest.mark.parametrize(
    ("incident", "why"),
    [
        (Incident(short("id-1"), "done", NOW - 10), "done"),
        (Incident(short("id-1"), "begun", NOW - 899), "under_way"),
        (Incident(short("id-1"), "begun", NOW - 901), None),  # its run is dead: taken over
        (Incident(short("id-1"), "begun", NOW - 901, attempts=3), "failed"),
        (Incident(short("id-1"), "failed", NOW - 1), None),
        (Incident(short("id-1"), "failed", NOW - 1, attempts=3), "failed"),
        (Incident(short("id-0"), "done", NOW - 10), None),  # an incident before this one
        (Incident(short("id-0"), "begun", NOW - 10), "under_way"),
        (Incident(short("id-0"), "failed", NOW - 10, attempts=3), None),
    ],
)
def test_an_incident_is_dealt_with_once(incident: Incident, why: str | None) -> None:
    assert suppressed(policy(), incident=incident) == why


def test_a_group_rests_after_an_action_but_not_for_the_same_incident() -> None:
    found = policy(rule(limits={"hold": 600}))
    journal, incident = begun(Journal(), found.rules[0], found, LOST, None, NOW - 100)
    other = replace(LOST, id="id-9", moref="host-2", names={"host": "esx2"})
    assert suppressed(found, other, journal=journal) == "hold"
    assert suppressed(found, replace(other, group="elsewhere"), journal=journal) is None
    assert suppressed(found, journal=journal, incident=replace(incident, state="failed")) is None
    assert decide(found, other, DEAD, journal, None, NOW + 501).run


def test_actions_of_an_hour_are_counted_for_a_rule_and_for_all() -> None:
    found = policy(
        rule(name="a", when={"group": "blades"}, limits={"actions_per_hour": 3}, actions=[{"wait": 1}, {"failover": None}]),
        rule(name="b"),
        limits={"actions_per_hour": 4},
    )
    one, journal = replace(LOST, group="other"), Journal()
    journal, _incident = begun(journal, found.rules[0], found, LOST, None, NOW - 3000)
    assert suppressed(found, journal=journal) == "limit"  # 2 of 3, and 2 more
    assert suppressed(found, one, journal=journal) is None
    for n in range(2):
        journal, _incident = begun(journal, found.rules[1], found, one, None, NOW - 10 + n)
    assert suppressed(found, one, journal=journal) == "limit"
    later = decide(found, LOST, DEAD, journal, None, NOW + 601)
    assert later.run and suppressed(policy(rule(limits={"actions_per_hour": 0}))) == "limit"


def test_the_journal_stays_short() -> None:
    found = policy(rule(name="名" * 100, limits={"hold": 9999, "actions_per_hour": MOST_PER_HOUR}))
    journal, incident = Journal(), None
    for n in range(MOST_PER_HOUR):
        event = replace(LOST, id=f"{n}" * 50, group=f"group {n}" * 20)
        journal, incident = begun(journal, found.rules[0], found, event, incident, NOW + n)
    text = write_journal(journal)
    assert len(text) < 3000 and len(read_journal(text).actions) == MOST_PER_HOUR
    assert begun(journal, found.rules[0], found, LOST, None, NOW + 3600 + 30)[0].actions[0][0] > NOW + 30
    assert incident is not None and read_incidents(write_incidents({"host_lost": incident})) == {"host_lost": incident}


@pytest.mark.parametrize("text", ["", "x", "[]", "3", '{"a": 1}', '{"a": [[1]]}', '{"h": {"g": 1}}', '{"host_lost": 1}', "null"])
def test_what_somebody_has_edited_counts_as_nothing(text: str) -> None:
    assert read_journal(text) == Journal() and read_incidents(text) == {}


@pytest.mark.parametrize(
    "value", [None, [], {}, {"id": 1, "kind": "host_lost"}, {"id": "x", "kind": "?"}, {"id": "x", "kind": "host_lost"}]
)
def test_what_is_no_event(value: Any) -> None:
    with pytest.raises(BadInput):
        read_event(value)


def test_an_event_of_the_history() -> None:
    event = read_event(
        {"id": "x", "kind": "event", "type": "AlarmStatusChangedEvent", "message": "m", "datastore": {"name": "d", "moref": "ds-1"}}
    )
    found = policy(rule(event="event", when={"type": "Alarm*", "datastore": "d"}, actions=[{"tasks": "t.yml"}]))
    assert (event.object, event.moref) == ("Datastore", "ds-1") and suppressed(found, event, Now()) is None


def test_events_that_are_handed_on_again_after_a_kill_are_acted_on_once() -> None:
    found = policy(rule(event="event", actions=[{"tasks": "t.yml"}]))
    first, second, third = (
        read_event({"id": f"u:{n}", "kind": "event", "type": "t", "time": f"2026-01-01T12:00:0{n}.000Z"}) for n in (1, 2, 3)
    )
    incident = replace(begun(Journal(), found.rules[0], found, second, None, NOW)[1], state="done")
    assert [suppressed(found, e, Now(), incident=incident) for e in (first, second, third)] == ["done", "done", None]
    text = write_journal(Journal(((NOW, 1, "r"),)), {"t": incident})
    assert read_incidents(text, root=True) == {"t": incident} and read_journal(text).actions == ((NOW, 1, "r"),)
