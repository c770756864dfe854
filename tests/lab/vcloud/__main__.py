# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``python3 -m tests.lab.vcloud CONFIG``: the server process of the lab's vCloud Director; CONFIG is JSON, 0600."""

from __future__ import annotations

import json
import signal
import sys
import threading
from pathlib import Path

from .app import App
from .control import Control, ControlServer
from .web import Server


def main(path: Path) -> int:
    config = json.loads(path.read_text(encoding="utf-8"))
    app = App(config)
    server = Server(app, ("127.0.0.1", config["port"]), config["cert"], config["key"])
    control = ControlServer(("127.0.0.1", config["control_port"]), Control(app, server.stats))
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_args: stop.set())
    for one in (server, control):
        threading.Thread(target=one.serve_forever, daemon=True).start()
    stop.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
