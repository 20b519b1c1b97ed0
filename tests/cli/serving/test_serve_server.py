"""Sockets, and checks of uploaded files."""

import pytest
from helpers.image_files import encoded, png_bomb

from negvision.cli.serving.server import is_loopback, listen, read_upload, url_of
from negvision.errors import DatasetError, UserError
from negvision.inference.runtime.images import decode


def test_port_is_free_again_after_its_server_ended():
    with listen("127.0.0.1", 0) as bound:
        port = bound.getsockname()[1]
        assert port > 0 and is_loopback(bound) and url_of(bound) == f"http://127.0.0.1:{port}/"
        with pytest.raises(UserError, match=rf"127.0.0.1, port {port}: Address already.* --port"):
            listen("127.0.0.1", port)
    listen("127.0.0.1", port).close()
    with listen("0.0.0.0", 0) as bound:
        assert not is_loopback(bound)


def test_ipv6_address_is_in_brackets():
    try:
        bound = listen("::1", 0)
    except UserError:
        pytest.skip("this machine has no IPv6")
    with bound:
        assert is_loopback(bound) and url_of(bound).startswith("http://[::1]:")


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host"])
def test_other_hosts_are_an_error(host):
    with pytest.raises(UserError, match=f"listen on {host}, port 0: .* address of this machine"):
        listen(host, 0)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tiff"])
def test_upload_is_decoded(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(encoded(suffix, 25, 40))
    assert read_upload(path, decode, max_pixels=1000).shape == (25, 40, 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"^a\.png: the file is empty"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", r"^a\.png: not an image of a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "not an image of a known format"),
        (encoded(".png", 31, 33), "33 x 31 pixels; this page accepts at most 1,000"),
        (png_bomb(60_000, 60_000), "60,000 x 60,000 pixels"),
    ],
    ids=["empty", "svg", "eps", "large", "bomb"],
)
def test_invalid_upload_is_never_decoded(tmp_path, content, message):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        read_upload(path, lambda *_: pytest.fail("decoded"), max_pixels=1000)
