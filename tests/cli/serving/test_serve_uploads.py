import cv2
import numpy as np
import pytest

from negvision.cli.serving.uploads import read_upload
from negvision.errors import DatasetError
from negvision.inference.runtime.images import decode


def _encoded(height: int, width: int, suffix: str = ".png") -> bytes:
    image = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    return cv2.imencode(suffix, image)[1].tobytes()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tiff"])
def test_image_is_decoded(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(_encoded(20, 30, suffix))
    assert read_upload(path, decode).shape == (20, 30, 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"^a\.png: the file is empty\.$"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", r"^a\.png: not an image of a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "not an image of a known format"),
        (_encoded(20, 30)[:-40], r"^a\.png: truncated PNG"),
        (_encoded(20, 30, ".jpg")[:300], "truncated JPEG"),
        (_encoded(31, 33), "33 x 31 pixels, and this page takes images of 1,000 at most"),
    ],
    ids=["empty", "svg", "eps", "torn png", "torn jpeg", "large"],
)
def test_bad_file_is_named_without_its_folder_and_never_decoded(tmp_path, content, message):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        read_upload(path, lambda *_: pytest.fail("decoded"), max_pixels=1000)


def test_limit_itself_is_allowed(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(_encoded(25, 40))
    assert read_upload(path, decode, max_pixels=1000).shape == (25, 40, 3)


def test_bomb_is_refused_by_its_header(tmp_path):
    path = tmp_path / "bomb.png"
    small = bytearray(_encoded(8, 8))
    small[16:24] = (60_000).to_bytes(4, "big") * 2
    path.write_bytes(small)
    with pytest.raises(DatasetError, match=r"60,000 x 60,000 pixels.*--max-pixels"):
        read_upload(path, lambda *_: pytest.fail("decoded"))
