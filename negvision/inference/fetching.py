"""Fetch an image from an address, within limits of size and time."""

import time
from http.client import HTTPException
from urllib import request
from urllib.error import URLError

from negvision import __version__
from negvision.errors import UserError

# More than any camera writes.
MAX_BYTES = 64 << 20
_SILENCE, _SECONDS = 20.0, 120.0
_PIECE = 1 << 16


def fetch(address: str, max_bytes: int = MAX_BYTES, seconds: float = _SECONDS) -> bytes:
    """What ``address`` answers, in memory.

    Args:
        address: Begins with http:// or https://, and so do those that it leads on to.
        max_bytes: A longer answer is refused.
        seconds: In all.

    Raises:
        UserError: There is no answer, or one that is an error, too long or too slow.
    """
    ends = time.monotonic() + seconds
    try:
        asked = request.Request(address, headers={"User-Agent": f"negvision/{__version__}"})
        with _opener().open(asked, timeout=min(_SILENCE, seconds)) as answer:
            content = bytearray()
            # One read of the socket at a time: a server may hand out a byte now and then.
            while piece := answer.read1(_PIECE):
                content += piece
                if len(content) > max_bytes:
                    raise UserError(f"{address}: more than {max_bytes / 2**20:.0f} MiB, not read")
                if time.monotonic() > ends:
                    raise UserError(f"{address}: not complete after {seconds:.0f} seconds")
            missing = answer.length
    # Those of sockets and certificates, of odd addresses, and of answers that are no HTTP.
    except (OSError, ValueError, HTTPException) as error:
        reason = error.reason if type(error) is URLError else error
        raise UserError(f"{address}: cannot be fetched: {reason}") from None
    if missing:
        raise UserError(f"{address}: the answer ended {missing:,} bytes early; try again")
    return bytes(content)


def _opener() -> request.OpenerDirector:
    """As urllib's own, without files, FTP and data in the address, to which answers could lead."""
    opener = request.OpenerDirector()
    for handler in (
        request.ProxyHandler,
        request.UnknownHandler,
        request.HTTPHandler,
        request.HTTPSHandler,
        request.HTTPDefaultErrorHandler,
        request.HTTPRedirectHandler,
        request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    return opener
