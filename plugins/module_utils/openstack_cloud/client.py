# Copyright (c) 2026, ferry.vmware contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Log in to an OpenStack, call its services, and turn what goes wrong into errors that can be acted on."""

from __future__ import annotations

import json
import logging
from typing import Any, Iterator, Mapping

from .. import requires
from ..errors import BadInput, ServerError, bounded

#: Read calls are sent again this many times when the connection breaks; calls that change something never are,
#: because the first one may have arrived.
READ_RETRIES = 3
#: Rows asked for per page; the server may give fewer.
PAGE = 1000
#: No listing is longer than this many pages: a server that never ends its list is broken.
MAX_PAGES = 1000

#: Services as the SDK names them, and as people do.
SERVICES = {
    "block_storage": "Cinder",
    "compute": "Nova",
    "identity": "Keystone",
    "image": "Glance",
    "network": "Neutron",
    "placement": "Placement",
}


def connect(params: Mapping[str, Any]) -> Any:
    """Log in and return an C(openstack.connection.Connection).

    :param params: the options of argspec.py: cloud, auth, auth_type, region_name, interface, ca_cert, validate_certs.
    :raises BadInput: the named cloud does not exist, or options are missing or contradict each other.
    :raises ServerError: code C(unauthorized), C(unreachable), C(certificate) or C(server).
    """
    sdk = requires.openstack()
    for quiet in ("openstack", "keystoneauth", "urllib3"):
        # What they log is in our errors already; without a handler, Python would write it to stderr.
        logging.getLogger(quiet).addHandler(logging.NullHandler())
    cloud = params.get("cloud")
    given = {
        "auth": params.get("auth"),
        "auth_type": params.get("auth_type"),
        "region_name": params.get("region_name"),
        "verify": params.get("validate_certs"),
        "cacert": params.get("ca_cert"),
    }
    options = {k: v for k, v in given.items() if v is not None}
    if isinstance(cloud, dict):
        if options:
            raise BadInput(f"The option cloud is a whole configuration: leave {', '.join(sorted(options))} out, or put it in there.")
        options = dict(cloud)
    else:
        options["cloud"] = cloud
        options["interface"] = params.get("interface") or "public"
    try:
        conn = sdk.connect(**options)
        conn.authorize()
    except Exception as e:  # noqa: BLE001 - the SDK and keystoneauth have no common base class: explain() sorts them
        raise explain(e, "log in", at=_where(options)) from None
    return conn


def _where(options: Mapping[str, Any]) -> str:
    auth = options.get("auth")
    if isinstance(auth, dict) and auth.get("auth_url"):
        return bounded(auth["auth_url"], 120)
    name = options.get("cloud")
    return f"the cloud {bounded(name, 80)}" if isinstance(name, str) else "the cloud of the environment (OS_CLOUD, OS_AUTH_URL)"


def explain(error: Exception, step: str, *, at: str = "OpenStack", **context: Any) -> ServerError | BadInput:
    """The error of the SDK or of keystoneauth as one of ours. What is not theirs is raised as it is."""
    if isinstance(error, (ServerError, BadInput)):
        return error
    module = type(error).__module__.split(".", maxsplit=1)[0]
    if module not in ("openstack", "keystoneauth1", "os_service_types", "requests", "urllib3", "ssl"):
        raise error
    # The SDK wraps what keystoneauth raised while logging in: the innermost of them says what it was.
    while type(error).__name__ == "SDKException" and isinstance(error.__cause__ or error.__context__, Exception):
        inner = error.__cause__ or error.__context__
        if not isinstance(inner, Exception) or type(inner).__module__.split(".", maxsplit=1)[0] not in ("openstack", "keystoneauth1"):
            break
        error = inner
    name = type(error).__name__
    said = words(error)
    status = getattr(error, "status_code", None) or getattr(error, "http_status", None)
    if name in ("SSLFailure", "SSLError") or "CERTIFICATE_VERIFY_FAILED" in said:
        return ServerError(
            f"The certificate of {at} is not trusted.",
            code="certificate",
            step=step,
            said=said,
            next_command="Name the file of its certificate authority in ca_cert (or in clouds.yaml as cacert).",
            **context,
        )
    if name == "Unauthorized" or status == 401:
        return ServerError(f"{at} refused the user or the password.", code="unauthorized", step=step, said=said, **context)
    if (
        name in ("MissingRequiredOptions", "ConfigException", "MissingAuthPlugin", "NoMatchingPlugin", "OptionError")
        or "was not found" in said
    ):
        return BadInput(
            f"It is not known how to log in to {at}.",
            code="configuration",
            step=step,
            said=said,
            next_command="Set cloud (a name in clouds.yaml) or auth with auth_url, username, password, project_name.",
            **context,
        )
    if name in ("EndpointNotFound", "EmptyCatalog", "ServiceDisabledException", "NotSupported", "ServiceDiscoveryException"):
        return ServerError(f"{at} does not offer this service.", code="missing_service", step=step, said=said, **context)
    if name in ("ConnectFailure", "ConnectTimeout", "ConnectionError", "ConnectTimeoutError", "UnknownConnectionError", "DiscoveryFailure"):
        return ServerError(f"{at} does not answer.", code="unreachable", step=step, said=said, **context)
    if name == "ResourceTimeout":
        return ServerError(f"{at} took too long.", code="timeout", step=step, said=said, **context)
    return of_status(status or 0, said, step, at=at, **context)


def of_status(status: int, said: str, step: str, *, at: str, **context: Any) -> ServerError:
    """The error for an HTTP status and the server's words."""
    low = said.lower()
    if status in (403, 409, 413) and ("quota" in low or "exceeded" in low):
        code, text = "quota", "the quota is used up"
    elif status == 403:
        code, text = "forbidden", "this user may not do that"
    elif status == 404:
        code, text = "not_found", "there is no such thing (any more)"
    elif status == 409:
        code, text = "conflict", "the request collides with the state of the resource"
    elif status == 413:
        code, text = "too_large", "the request is too large, or a limit is reached"
    elif status == 415:
        code, text = "unsupported", "the server does not accept this kind of content"
    elif status == 401:
        code, text = "unauthorized", "the token is no longer valid"
    elif status >= 500:
        code, text = "server_failed", "the server failed"
    else:
        code, text = "server", "the server refused"
    return ServerError(
        f"{at}: {text}" + (f" (HTTP {status})." if status else "."), code=code, step=step, said=said, status=status or None, **context
    )


def words(error: Exception) -> str:
    """What the server said, bounded. The message of an SDK error often hides it behind the URL."""
    response = getattr(error, "response", None)
    if response is not None:
        return said_in(response)
    details = getattr(error, "details", None)
    return bounded(details or error).rstrip(".")


def said_in(response: Any) -> str:
    """The sentence in an error answer of OpenStack: C({"badRequest": {"message": ...}}), C({"NeutronError": ...}), HTML, or text."""
    text = response.text or response.reason or ""
    try:
        body = json.loads(text)
    except ValueError:
        return bounded(text)
    found: Any = body
    if isinstance(body, dict) and len(body) == 1:
        found = next(iter(body.values()))
    if isinstance(found, dict):
        found = found.get("message") or found.get("detail") or found
    if isinstance(body, dict) and isinstance(body.get("errors"), list) and body["errors"]:
        first = body["errors"][0]
        found = first.get("detail", first) if isinstance(first, dict) else first
    return bounded(found).strip().rstrip(".")


def call(
    conn: Any,
    service: str,
    method: str,
    path: str,
    *,
    step: str,
    body: Any | None = None,
    microversion: str | None = None,
    ok: tuple[int, ...] = (200, 201, 202, 203, 204),
    allow: tuple[int, ...] = (),
    **kwargs: Any,
) -> Any:
    """One request to a service; the response, whatever its body.

    :param service: key of SERVICES.
    :param path: begins with a slash, without the endpoint.
    :param step: what is being done, in the infinitive, for the error.
    :param allow: statuses besides C(ok) that are returned instead of raised.
    :raises ServerError: see of_status().
    """
    at = SERVICES[service]
    retries = READ_RETRIES if method == "GET" else 0
    if body is not None:
        kwargs["json"] = body
    if microversion:
        kwargs["microversion"] = microversion
    try:
        # A redirect is not followed: a token belongs to nobody but the host that the catalog names.
        response = getattr(conn, service).request(
            path, method, raise_exc=False, redirect=False, connect_retries=retries, status_code_retries=retries, **kwargs
        )
    except Exception as e:  # noqa: BLE001 - see connect()
        raise explain(e, step, at=at) from None
    if response.status_code in ok or response.status_code in allow:
        return response
    raise of_status(response.status_code, said_in(response), step, at=at)


def get(conn: Any, service: str, path: str, *, step: str, **kwargs: Any) -> Any:
    """The JSON body of a GET."""
    response = call(conn, service, "GET", path, step=step, **kwargs)
    try:
        return response.json()
    except ValueError:
        raise ServerError(f"{SERVICES[service]} answered something else than JSON.", step=step, said=said_in(response)) from None


def get_optional(conn: Any, service: str, path: str, *, step: str, **kwargs: Any) -> dict[str, Any]:
    """The JSON object of a GET; empty where this user may not have it, or the cloud does not offer the service.

    :raises ServerError: the service failed, or answered something else than JSON.
    """
    try:
        response = call(conn, service, "GET", path, step=step, allow=(403, 404), **kwargs)
    except ServerError as e:
        if e.code == "missing_service":
            return {}
        raise
    if response.status_code >= 400:
        return {}
    try:
        body = response.json()
    except ValueError:
        raise ServerError(f"{SERVICES[service]} answered something else than JSON.", step=step, said=said_in(response)) from None
    return body if isinstance(body, dict) else {}


def listing(
    conn: Any, service: str, path: str, key: str, *, step: str, params: Mapping[str, Any] | None = None, **kwargs: Any
) -> Iterator[dict[str, Any]]:
    """All rows of a paged listing. Links of the server are never followed, only its markers."""
    query: dict[str, Any] = {"limit": PAGE, **(params or {})}
    for _page in range(MAX_PAGES):
        body = get(conn, service, path, step=step, params=query, **kwargs)
        rows = body.get(key)
        if not isinstance(rows, list):
            raise ServerError(f"{SERVICES[service]} answered a list without {key}.", step=step, said=json.dumps(body))
        yield from rows
        links = body.get(f"{key}_links") or []
        more = any(link.get("rel") == "next" for link in links) or (service == "image" and body.get("next"))
        if not rows or not more:
            return
        query["marker"] = rows[-1]["id"]
    raise ServerError(f"{SERVICES[service]} never ends its list of {key}.", step=step)
