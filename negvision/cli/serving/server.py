"""A server for one page: its socket, the headers of its answers, and how large a request may be."""

from __future__ import annotations

import errno
import ipaddress
import socket
from typing import Any

from negvision.errors import UserError

# The browser asks nothing of any other host, whatever a theme or an uploaded file names.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; "
    "object-src 'none'; form-action 'self'; frame-ancestors 'self'"
)
_HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)


def listen(host: str, port: int) -> socket.socket:
    """A socket that others can connect to; ``port`` 0 takes any free one.

    Raises:
        UserError: The port is in use or not allowed, or the host is not of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise UserError(f"--host {host}: no such host ({error.strerror or error})") from None
    bound = socket.socket(family, kind, protocol)
    try:
        # A port whose last connections are still winding up is free; one that is served is not.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(128)
    except OSError as error:
        bound.close()
        raise UserError(_why_not(error, host, port)) from None
    return bound


def _why_not(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} of {host} is in use: end what uses it, or name another with --port "
            "(0 takes any free one)"
        )
    if error.errno == errno.EACCES:
        return f"port {port} may not be opened by this user: name one from 1024 on with --port"
    if error.errno == errno.EADDRNOTAVAIL:
        return (
            f"--host {host}: not an address of this machine. 127.0.0.1 is for this machine alone, "
            "0.0.0.0 for all that can reach it"
        )
    return f"{host}, port {port}: {error.strerror or error}"


def is_loopback(bound: socket.socket) -> bool:
    """Whether this machine alone can connect."""
    return ipaddress.ip_address(bound.getsockname()[0]).is_loopback


def url_of(bound: socket.socket) -> str:
    """What to type into a browser.

    Example:
        >>> with listen("127.0.0.1", 0) as bound:
        ...     url_of(bound).startswith("http://127.0.0.1:")
        True
    """
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


class Guarded:
    """An ASGI app whose answers carry the policy, and whose requests are of bounded size.

    Args:
        app: What answers.
        max_body: Bytes of a request beyond which it is answered by 413 and not read on.
        hosts: Names in the Host header that are answered, or None for all. A page elsewhere whose
            name was made to point to this machine is so kept out.
    """

    def __init__(self, app: Any, max_body: int, hosts: tuple[str, ...] | None = None) -> None:
        self.app = app
        self.max_body = max_body
        self.hosts = hosts

    async def __call__(self, scope: dict, receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        if self.hosts is not None and _host_of(headers) not in self.hosts:
            await _refuse(send, 421, "This page is for the machine alone that it runs on.")
            return
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self.max_body:
            await _refuse(send, 413, f"A request holds {self.max_body:,} bytes at most.")
            return
        taken = 0

        async def counted() -> dict:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            # Only a request that does not say its length gets here with more.
            return {"type": "http.disconnect"} if taken > self.max_body else message

        async def with_headers(message: dict) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        await self.app(scope, counted, with_headers)


def _host_of(headers: dict[bytes, bytes]) -> str:
    """The host of a request without its port; of an IPv6 address without brackets."""
    name = headers.get(b"host", b"").decode("latin-1").lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0]


async def _refuse(send: Any, status: int, reason: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": reason.encode()})


def serve(app: Any, bound: socket.socket) -> None:
    """Answer requests until SIGINT or SIGTERM."""
    import uvicorn

    # The page keeps one request open for as long as it is shown: there is no waiting for its end.
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
    try:
        uvicorn.Server(config).run(sockets=[bound])
    except KeyboardInterrupt:  # raised anew by uvicorn once it has ended
        pass
    finally:
        bound.close()
