"""Sources of images: what is accepted, in which order it is read, and what is refused."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from negvision.errors import DatasetError, UserError, WarnOnce
from negvision.inference import sources as module
from negvision.inference import videos
from negvision.inference.runtime.images import decode
from negvision.inference.sources import fetch, find_sources


def _names(sources) -> list[str]:
    return [frame.name for frame in sources.read(decode)]


def test_files_keep_their_order_and_folders_are_sorted(image_files, tmp_path):
    folder = Path(image_files[0]).parent
    (folder / "notes.txt").write_text("no image")
    (folder / "below").mkdir()
    cv2.imwrite(str(folder / "below/d.png"), np.zeros((4, 4, 3), np.uint8))
    sources = find_sources([image_files[2], str(folder)])
    wanted = [image_files[2], *(str(folder / name) for name in ("a.jpg", "b.png", "c.png"))]
    assert _names(sources) == wanted and sources.count == 4
    [first, *_] = sources.read(decode)
    assert np.array_equal(first.image, cv2.imread(image_files[2]))
    assert first.number is first.rate is None


def test_patterns_only_match_images_and_videos(image_files, video, tmp_path):
    (tmp_path / "image_files/notes.txt").write_text("no image")
    sources = find_sources([str(tmp_path / "**" / "*")])
    assert sources.count == 6 + 3
    names = list(dict.fromkeys(_names(sources)))
    assert names == [str(video), *sorted(image_files)]
    # A file with this name takes precedence over the pattern.
    odd = tmp_path / "odd[1].png"
    cv2.imwrite(str(odd), np.zeros((4, 4, 3), np.uint8))
    assert _names(find_sources([str(odd)])) == [str(odd)]


def test_videos_give_numbered_frames(video):
    sources = find_sources([str(video)])
    frames = list(sources.read(decode))
    assert [frame.number for frame in frames] == list(range(6)) and sources.count == 6
    assert {frame.rate for frame in frames} == {10.0}
    levels = [float(frame.image.mean()) for frame in frames]
    assert np.allclose(levels, [40 * number for number in range(6)], atol=3)
    fewer = find_sources([str(video)], frames=4)
    assert fewer.count == len(_names(fewer)) == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nowhere.png", r"nowhere\.png: no such file or folder\. A source is"),
        ("empty", r"empty: the folder has no images \(\.jpg.*give a pattern: 'empty/\*\*/\*\.jpg'"),
        ("*.png", r"\*\.png: none of the 0 matching files is an image or a video"),
        ("*.txt", r"\*\.txt: none of the 1 matching files"),
        ("ftp://host/a.png", r"ftp://host/a\.png: only http:// and https:// URLs"),
        ("file:///etc/passwd", "only http:// and https:// URLs"),
        ("http://127.0.0.1:1/a.png", "nothing is downloaded by default: add --allow-urls"),
        ("977", "webcam 977: not found, or used by another program"),
    ],
)
def test_missing_sources_are_reported_at_once(tmp_path, monkeypatch, capfd, text, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(UserError, match=message):
        find_sources([text])
    assert capfd.readouterr().err == ""  # OpenCV's own lines


def test_unreadable_files_are_named(image_files, tmp_path):
    for name, content in {"text.png": b"no image", "empty.png": b"", "no_suffix": b"x"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DatasetError, match=name):
            _names(find_sources([str(tmp_path / name)]))
    sources = find_sources(image_files)
    os.unlink(image_files[1])
    with pytest.raises(DatasetError, match=r"a\.jpg: cannot be read: No such file"):
        _names(sources)


@pytest.mark.parametrize(("suffix", "code"), [("mp4", "mp4v"), ("avi", "MJPG")])
def test_truncated_videos_are_named(make_video, suffix, code):
    path = make_video(suffix, code)
    assert find_sources([str(path)]).count == 6
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DatasetError, match=r"clip\.\w+: truncated video, 100 bytes are missing"):
        find_sources([str(path)])


@pytest.mark.parametrize(
    ("suffix", "code"), [("mp4", "mp4v"), ("mov", "mp4v"), ("avi", "MJPG"), ("mkv", "mp4v")]
)
def test_videos_with_damaged_frames_are_named(make_video, suffix, code):
    path = make_video(suffix, code, count=30, noise=90)
    data = bytearray(path.read_bytes())
    third = len(data) // 3
    data[third : 2 * third] = bytes(third)
    path.write_bytes(data)
    errors = []
    seen = [frame.number for frame in find_sources([str(path)]).read(decode, errors.append)]
    assert seen == list(range(len(seen))) and 0 < len(seen) < 25
    [error] = errors
    assert f"only {len(seen)} of 30 frames can be read; the video is damaged" in str(error)
    assert error.kind == "video with missing frames"
    # Nothing is lost of the frames that were asked for.
    assert len(_names(find_sources([str(path)], frames=len(seen)))) == len(seen)


def test_videos_that_an_edit_list_cuts_are_complete(make_video):
    """An editor keeps all frames in the file, and notes which are shown."""
    path = make_video(count=30)
    data = bytearray(path.read_bytes())
    place = data.rfind(b"elst") + 12
    duration = int.from_bytes(data[place : place + 4], "big")
    data[place : place + 4] = (duration // 3).to_bytes(4, "big")
    path.write_bytes(data)
    sources = find_sources([str(path)])
    assert sources.count == 10
    assert 8 <= len(_names(sources)) <= 12


def test_damaged_sources_are_left_out_on_request(video, image_files, tmp_path):
    Path(image_files[1]).write_bytes(b"")
    other = tmp_path / "cut.mp4"
    other.write_bytes(video.read_bytes()[:-100])
    errors = []
    sources = find_sources([str(other), *image_files], leave_out=errors.append)
    assert [frame.name for frame in sources.read(decode, errors.append)] == image_files[::2]
    assert [error.kind for error in errors] == ["truncated video", "empty image file"]


def test_hidden_files_are_not_read_and_others_counted(image_files):
    folder = Path(image_files[0]).parent
    for name in ("._a.jpg", "b.heic", "clip.mp4"):
        (folder / name).write_bytes(b"")
    sources = find_sources([str(folder)])
    assert sources.count == 3
    assert sorted(sources.passed_over.line().split(", ")) == ["1 .heic", "1 .mp4", "1 hidden"]
    with pytest.raises(UserError, match=r"has no images .*, but 1 hidden\. To read subfolders"):
        os.makedirs(folder / "mac")
        (folder / "mac/._a.jpg").write_bytes(b"")
        find_sources([str(folder / "mac")])


def test_brackets_of_existing_folders_are_no_pattern(image_files, tmp_path):
    folder = tmp_path / "set [1]" / "[a]"
    folder.parent.mkdir()
    Path(image_files[0]).parent.rename(folder)
    wanted = [str(folder / name) for name in ("b.png", "c.png")]
    assert _names(find_sources([f"{folder}/*.png"])) == wanted
    assert _names(find_sources([f"{folder}/[bc].png"])) == wanted
    with pytest.raises(UserError, match=r"none of the 0 matching .* for a bracket write \[\[\]"):
        find_sources([f"{tmp_path}/set [2]/*.png"])


def test_only_the_first_page_is_read_and_told(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(module, "_several", WarnOnce())
    pages = [np.full((8, 8, 3), 90 * number, np.uint8) for number in range(2)]
    cv2.imwritemulti(str(tmp_path / "a.tiff"), pages)
    assert len(_names(find_sources([str(tmp_path / "a.tiff")] * 2))) == 2
    [said] = caplog.messages
    assert said.startswith(f"{tmp_path}/a.tiff: only the first of its pages or frames is read")


def test_data_after_a_video_are_ignored(video):
    video.write_bytes(video.read_bytes() + b"\xff" * 64)
    assert find_sources([str(video)]).count == 6


@pytest.mark.parametrize(
    "content", [b"", b"#EXTM3U\nhttp://127.0.0.1:1/a.ts\n", b"ffconcat version 1.0\n", b"text" * 9]
)
def test_other_files_do_not_reach_the_decoder(tmp_path, monkeypatch, content):
    (tmp_path / "list.mp4").write_bytes(content)
    monkeypatch.setattr(videos, "_capture", lambda source: pytest.fail("was opened"))
    with pytest.raises(DatasetError, match=r"list\.mp4: not a video of a known format"):
        find_sources([str(tmp_path / "list.mp4")])


def test_unsupported_videos_are_named(video, monkeypatch):
    monkeypatch.setattr(videos, "MAX_PIXELS", 48 * 64 - 1)
    with pytest.raises(DatasetError, match="frames of 64 x 48 pixels exceed the limit of 3,071"):
        find_sources([str(video)])
    video.write_bytes(b"\x00\x00\x00\x10ftypisom\x00\x00\x02\x00" + b"\x00\x00\x00\x08free")
    with pytest.raises(DatasetError, match=r"clip\.mp4: OpenCV cannot decode this video"):
        find_sources([str(video)])


class Camera:
    """A webcam with a number of ``frames``, None for no end."""

    def __init__(self, frames=None):
        self.left = frames
        self.released = False

    def isOpened(self):
        return True

    def get(self, key):
        return {cv2.CAP_PROP_FRAME_WIDTH: 8, cv2.CAP_PROP_FRAME_HEIGHT: 4}.get(key, float("nan"))

    def read(self):
        if self.left == 0:
            return False, None
        self.left = None if self.left is None else self.left - 1
        return True, np.zeros((4, 8, 3), np.uint8)

    def release(self):
        self.released = True


def test_webcams_are_read_until_closed(monkeypatch):
    opened = []
    monkeypatch.setattr(videos, "_capture", lambda source: opened.append(Camera()) or opened[-1])
    sources = find_sources(["0"])
    assert sources.count is None
    frames = sources.read(decode)
    assert [next(frames).number for _ in range(7)] == list(range(7))
    frames.close()
    some = find_sources(["0"], frames=3)
    assert some.count == 3
    assert [(f.name, f.rate) for f in some.read(decode)] == [("webcam 0", 25.0)] * 3
    assert all(camera.released for camera in opened)
    monkeypatch.setattr(videos, "_capture", lambda source: Camera(2))
    for frames in (3, None):
        with pytest.raises(DatasetError, match="webcam 0: stopped after 2 frames") as caught:
            _names(find_sources(["0"], frames=frames))
        assert caught.value.kind == videos.WEBCAM_STOPPED
    monkeypatch.setattr(videos, "_capture", lambda source: Camera(0))
    with pytest.raises(DatasetError, match="webcam 0: no frame can be read"):
        _names(find_sources(["0"]))


def test_urls_are_downloaded_if_allowed(served, image_files):
    address, folder = served
    (folder / "a.png").write_bytes(Path(image_files[0]).read_bytes())
    sources = find_sources([f"{address}/a.png", f"{address}/to//a.png"], allow_urls=True)
    one, other = sources.read(decode)
    assert one.name == f"{address}/a.png"
    assert np.array_equal(one.image, cv2.imread(image_files[0]))
    assert np.array_equal(one.image, other.image)
    (folder / "a.png").write_text("<html>")
    with pytest.raises(DatasetError, match=r"/a\.png: not an image of a known format"):
        next(sources.read(decode))


def test_downloads_are_limited(served, monkeypatch):
    address, folder = served
    (folder / "a.png").write_bytes(b"x" * (2 << 20))
    assert len(fetch(f"{address}/a.png", 2 << 20)) == 2 << 20
    with pytest.raises(UserError, match=r"a\.png: larger than 1 MiB, not read"):
        fetch(f"{address}/a.png", 1 << 20)
    monkeypatch.setattr(module.time, "monotonic", iter(range(0, 10**6, 100)).__next__)
    with pytest.raises(UserError, match=r"a\.png: not complete after 120 seconds"):
        fetch(f"{address}/a.png")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/none.png", "cannot be downloaded: HTTP Error 404"),
        ("/cut.png", "cut.png: 995 bytes are missing at the end"),
        ("/to/file:///etc/passwd", "cannot be downloaded"),
        ("/to/ftp://127.0.0.1:1/a", "cannot be downloaded"),
        ("http://127.0.0.1:1/a.png", "cannot be downloaded"),
        ("http://[", "cannot be downloaded"),
        ("http://a b/c.png", "cannot be downloaded"),
    ],
)
def test_failed_downloads_are_named(served, path, message):
    with pytest.raises(UserError, match=message):
        fetch(path if path.startswith("http") else served[0] + path, seconds=5)


def test_a_written_video_without_its_frames_is_an_error(tmp_path):
    writer = videos.VideoWriter(tmp_path / "a.mp4", 10, (48, 64))
    for _ in range(3):
        writer.add(np.zeros((48, 64, 3), np.uint8))
    writer.close()
    writer = videos.VideoWriter(tmp_path / "b.mp4", 10, (48, 64))
    writer.add(np.zeros((48, 64, 3), np.uint8))
    writer._count += 1  # as if the disk had been full for one
    with pytest.raises(UserError, match=r"b\.mp4 cannot be written: 1 of 2 frames are in the file"):
        writer.close()
