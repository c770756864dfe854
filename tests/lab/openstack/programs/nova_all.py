# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Nova's API, conductor, scheduler and compute in one process, because oslo.messaging's fake:// works within a process only.

usage: OS_NOVA_CONFIG_DIR=folder nova_all.py PORT   (the folder holds nova.conf and api-paste.ini)
"""

from nova import monkey_patch

monkey_patch.patch(backend="threading")  # before anything else is imported

import os
import shlex
import signal
import sys
from socketserver import ThreadingMixIn
from wsgiref import simple_server

PORT = int(sys.argv[1])
sys.argv = ["nova-all", "--config-file", os.path.join(os.environ["OS_NOVA_CONFIG_DIR"], "nova.conf")]  # read by init_application

import nova.conf
import os_brick
import os_vif
from nova import objects, service, utils
from nova.api.openstack import wsgi_app
from nova.compute import rpcapi as compute_rpc
from nova.conductor import rpcapi as conductor_rpc
from nova.scheduler import rpcapi as scheduler_rpc
from oslo_privsep import priv_context

SERVICES = (
    {"binary": "nova-conductor", "topic": conductor_rpc.RPC_TOPIC},
    {"binary": "nova-scheduler", "topic": scheduler_rpc.RPC_TOPIC},
    {"binary": "nova-compute", "topic": compute_rpc.RPC_TOPIC, "topic_alt": compute_rpc.RPC_TOPIC_ALT},
)


class Server(ThreadingMixIn, simple_server.WSGIServer):
    daemon_threads = True
    request_queue_size = 64


class Handler(simple_server.WSGIRequestHandler):
    protocol_version = "HTTP/1.0"

    def log_message(self, *_arguments: object) -> None:
        """Nova logs its requests itself."""


def main() -> None:
    application = wsgi_app.init_application("osapi_compute", "nova-all")
    if nova.conf.CONF.compute_driver.startswith("libvirt"):
        import lab_libvirt  # beside this file

        lab_libvirt.install()
    priv_context.init(root_helper=shlex.split(utils.get_root_helper()))
    objects.register_all()
    os_brick.setup(nova.conf.CONF)
    os_vif.initialize()
    running = []
    for arguments in SERVICES:
        running.append(service.Service.create(**arguments))
        running[-1].start()
    # Nova's own graceful stop waits for timers; the databases do not need it.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    simple_server.make_server("127.0.0.1", PORT, application, Server, Handler).serve_forever()


main()
