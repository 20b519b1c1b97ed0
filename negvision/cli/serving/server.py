"""The server of a page: its socket, limits of requests, and checks of uploaded files."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from negvision.data.images.integrity import require_size
from negvision.errors import DatasetError, UserError

# The browser contacts no other host, whatever a theme or an uploaded file names.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; "
    "object-src 'none'; form-action 'self'; frame-ancestors 'self'"
)
_HEADERS = [(b"content-security-policy", _POLICY.encode()), (b"x-content-type-options", b"nosniff")]


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; ``port`` 0 picks a free one.

    Raises:
        UserError: The port is in use or not permitted, or the host is not of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise UserError(
            f"cannot listen on {host}, port {port}: {error.strerror or error}. Give another port "
            "with --port (0 picks a free one), or an address of this machine with --host "
            "(127.0.0.1 for this machine only, 0.0.0.0 for everyone who reaches it)"
        ) from None


def is_loopback(bound: socket.socket) -> bool:
    """Whether only this machine can connect."""
    return ipaddress.ip_address(bound.getsockname()[0]).is_loopback


def url_of(bound: socket.socket, root: str = "") -> str:
    """The URL of the page, below ``root`` if a proxy shows it there.

    Example:
        >>> with listen("127.0.0.1", 0) as bound:
        ...     url_of(bound).startswith("http://127.0.0.1:")
        True
    """
    if "://" in root:
        return f"{root}/"
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}{root}/" if ":" in host else f"http://{host}:{port}{root}/"


class Guarded:
    """An ASGI app with a content security policy and limits of its requests.

    Args:
        app: The app.
        max_body: Size of a request in bytes at which the connection is closed.
        hosts: Accepted names in the Host header, or None for all. This keeps out pages elsewhere
            whose name was made to point to this machine.
        root: Path or URL at which a proxy shows the app. The proxy may remove it from the paths of
            requests, or leave it.
    """

    def __init__(
        self, app: Any, max_body: int, hosts: tuple[str, ...] | None = None, root: str = ""
    ) -> None:
        self.app = app
        self.max_body = max_body
        self.hosts = hosts
        self.prefix = urlsplit(root).path

    async def __call__(self, scope: dict, receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        host = _host_of(dict(scope["headers"]))
        if self.hosts is not None and host not in self.hosts:
            await _refuse(send, host)
            return
        if self.prefix and f"{scope['path']}/".startswith(f"{self.prefix}/"):
            scope = {**scope, "path": scope["path"].removeprefix(self.prefix) or "/"}
            scope["raw_path"] = scope["path"].encode()
        received = 0

        async def limited() -> dict:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return {"type": "http.disconnect"} if received > self.max_body else message

        async def with_headers(message: dict) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        await self.app(scope, limited, with_headers)


async def _refuse(send: Any, host: str) -> None:
    shown = host if re.fullmatch(r"[\w.:-]{1,255}", host, re.ASCII) else "NAME"
    text = (
        f"This page is not served under the name {shown!r}. If that is a name of this server, "
        f"start it with --allowed-host {shown}\n"
    )
    plain = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": 421, "headers": [*plain, *_HEADERS]})
    await send({"type": "http.response.body", "body": text.encode()})


def _host_of(headers: dict[bytes, bytes]) -> str:
    """The host of a request without port and brackets."""
    name = headers.get(b"host", b"").decode("latin-1").lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0]


def serve(app: Any, bound: socket.socket) -> None:
    """Answer requests until SIGINT or SIGTERM."""
    import uvicorn

    # The page keeps a request open while it is shown: do not wait for it at the end.
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
    try:
        uvicorn.Server(config).run(sockets=[bound])
    except KeyboardInterrupt:  # uvicorn raises it again when it has ended
        pass
    finally:
        bound.close()


def read_upload(
    path: str | os.PathLike,
    decode: Callable[[bytes, str], np.ndarray],
    max_pixels: int,
) -> np.ndarray:
    """Decode an uploaded file after checking its format and size.

    Args:
        path: Of the file; errors only show its name.
        decode: Takes bytes and a name, returns (H, W, 3) uint8, and reports damage.
        max_pixels: Largest height x width.

    Raises:
        DatasetError: The file is empty, damaged, too large or not an image.
    """
    data, name = Path(path).read_bytes(), Path(path).name
    header = require_size(data, name)
    if header.pixels > max_pixels:
        raise DatasetError(
            f"{name}: {header.width:,} x {header.height:,} pixels; this page accepts at most "
            f"{max_pixels:,}. Reduce the image, or start the page with a larger --max-pixels."
        )
    return decode(data, name)
