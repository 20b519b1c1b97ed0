import socket

import pytest

from negvision.cli.serving.server import Guarded, is_loopback, listen, url_of
from negvision.errors import UserError


def test_any_free_port_is_found():
    with listen("127.0.0.1", 0) as bound:
        assert bound.getsockname()[1] > 0 and is_loopback(bound)
        assert url_of(bound) == f"http://127.0.0.1:{bound.getsockname()[1]}/"


def test_port_in_use_is_told_with_another_way():
    with listen("127.0.0.1", 0) as bound:
        port = bound.getsockname()[1]
        with pytest.raises(UserError, match=rf"port {port} of 127.0.0.1 is in use: .* --port"):
            listen("127.0.0.1", port)
    # And is free at once when its server has ended.
    listen("127.0.0.1", port).close()


def test_all_addresses_are_no_loopback():
    with listen("0.0.0.0", 0) as bound:
        assert not is_loopback(bound)


def test_ipv6_address_stands_in_brackets():
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    try:
        bound = listen("::1", 0)
    except UserError:
        pytest.skip("no IPv6 here")
    with bound:
        assert is_loopback(bound) and url_of(bound).startswith("http://[::1]:")


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ("192.0.2.1", "--host 192.0.2.1: not an address of this machine"),
        ("no such host", "--host no such host: no such host"),
    ],
)
def test_host_of_others_is_an_error(host, message):
    with pytest.raises(UserError, match=message):
        listen(host, 0)


def _call(app: Guarded, headers: list, chunks: list[bytes]) -> list[dict]:
    """What an app sends for a request."""
    sent: list[dict] = []
    waiting = [
        {"type": "http.request", "body": chunk, "more_body": number + 1 < len(chunks)}
        for number, chunk in enumerate(chunks)
    ]

    async def receive() -> dict:
        return waiting.pop(0)

    async def send(message: dict) -> None:
        sent.append(message)

    run = app({"type": "http", "headers": headers}, receive, send)
    with pytest.raises(StopIteration):  # nothing here waits for a loop
        run.send(None)
    return sent


async def _echo(scope, receive, send) -> None:
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            body, more = b"gone", False
        else:
            body, more = body + message["body"], message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})
    await send({"type": "http.response.body", "body": body})


@pytest.mark.parametrize(
    ("headers", "chunks", "status", "body"),
    [
        ([(b"content-length", b"8")], [b"12345678"], 200, b"12345678"),
        ([(b"content-length", b"9")], [b"123456789"], 413, b"A request holds 8 bytes at most."),
        ([(b"content-length", b"-1")], [b""], 413, b"A request holds 8 bytes at most."),
        ([], [b"1234", b"5678"], 200, b"12345678"),
        ([], [b"1234", b"56789"], 200, b"gone"),
    ],
)
def test_body_is_bounded_by_what_is_said_and_by_what_comes(headers, chunks, status, body):
    start, end = _call(Guarded(_echo, 8), headers, chunks)
    assert (start["status"], end["body"]) == (status, body)
    if status == 200:
        assert (b"a", b"b") in start["headers"]
        assert b"content-security-policy" in dict(start["headers"])


@pytest.mark.parametrize(
    ("host", "status"),
    [
        (b"localhost", 200),
        (b"LOCALHOST:80", 200),
        (b"[::1]:80", 200),
        (b"localhost.evil.example", 421),
        (b"", 421),
    ],
)
def test_names_of_the_host_are_looked_at(host, status):
    app = Guarded(_echo, 8, ("localhost", "::1"))
    start, _ = _call(app, [(b"host", host)], [b""])
    assert start["status"] == status
