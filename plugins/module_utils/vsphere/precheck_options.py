# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a wave is to be migrated, as far as a precheck of its source depends on it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Mapping, Sequence

from ..errors import BadInput, bounded

STRATEGIES = ("cold", "warm")
#: The ways that a disk can be read, the best first (design, section 1); nbd stands for VDDK.
TRANSPORTS = ("https", "nbd", "nfc")
#: What one VM may have of its own.
PER_VM = ("strategy", "transports", "on_timeout", "network_map", "storage_map", "target_name", "guest_convert")
ON_TIMEOUT = ("fail", "poweroff")


@dataclass(frozen=True)
class Options:
    """C(target): who moves the disks: C(openshift) and C(harvester) have importers of their own. C(target_name): what the VM shall be called there.

    C(transports): those that may be used. C(on_timeout): what is done with a guest that does not shut down.

    C(converts): the guest is converted for the target. C(check_maps): the maps are looked at here, by their keys; else the target's side does that.
    C(headroom_percent): of a disk's capacity that its snapshot may take. C(streams_per_host): NFC streams that one host carries.
    C(skew_seconds): that clocks may differ. C(certificate_days): that vCenter's certificate has to last.
    C(distrusted_builds): see builds.parse_bad.
    """

    strategy: str = "cold"
    transports: tuple[str, ...] = ("https", "nfc")
    on_timeout: str = "fail"
    network_map: Mapping[str, Any] = field(default_factory=dict)
    storage_map: Mapping[str, Any] = field(default_factory=dict)
    check_maps: bool = False
    converts: bool = True
    #: What was said of the conversion, where it was; else the hardware decides.
    guest_convert: bool | None = None
    headroom_percent: float = 10.0
    streams_per_host: int = 10
    skew_seconds: float = 60.0
    certificate_days: float = 30.0
    distrusted_builds: Sequence[str] = field(default_factory=tuple)
    target: str = ""
    target_name: str = ""

    def __post_init__(self) -> None:
        step = "read the options"
        for name, value, allowed in (
            ("strategy", (self.strategy,), STRATEGIES),
            ("transports", self.transports, TRANSPORTS),
            ("on_timeout", (self.on_timeout,), ON_TIMEOUT),
        ):
            wrong = [bounded(v, 40) for v in value if v not in allowed]
            if wrong:
                raise BadInput(f"{name} is {', '.join(wrong)}; it can be {', '.join(allowed)}.", step=step)
        if not self.transports:
            raise BadInput(f"transports is empty; it can hold {', '.join(TRANSPORTS)}.", step=step)
        if not 0 <= self.headroom_percent <= 100:
            raise BadInput(f"headroom_percent is {self.headroom_percent:g}; it can be 0 to 100.", step=step)

    @property
    def imported(self) -> bool:
        """Whether an importer of the target moves the disks, so that how this collection would read them does not matter."""
        return self.target in ("openshift", "harvester")

    @property
    def warm(self) -> bool:
        return self.strategy == "warm"

    @property
    def keeps_addresses(self) -> bool:
        """Whether cards are to keep their addresses on the target."""
        return any(isinstance(to, Mapping) and to.get("keep_ip") for to in self.network_map.values())

    def of(self, own: Mapping[str, Any]) -> Options:
        """These options with what is said of one VM.

        :raises BadInput: it says something that no VM can have of its own.
        """
        unknown = sorted(bounded(k, 40) for k in own if k not in PER_VM)
        if unknown:
            raise BadInput(f"Unknown options of one VM: {', '.join(unknown)}. Known are {', '.join(PER_VM)}.", step="read the options")
        for name in ("network_map", "storage_map"):
            if not isinstance(own.get(name) or {}, Mapping):
                raise BadInput(f"{name} of one VM is no mapping.", step="read the options")
        changed: dict[str, Any] = {k: _names(k, v) if k == "transports" else v for k, v in own.items() if v is not None}
        return replace(self, **changed) if changed else self


def _names(option: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise BadInput(f"{option} of one VM is no list.", step="read the options")
    return tuple(str(v) for v in value)
