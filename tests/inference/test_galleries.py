"""Faces from photograph to name: detect, align, embed, compare, search; thresholds; bad input."""

import json

import cv2
import numpy as np
import onnx
import pytest

from negvision import FaceDetector, Gallery, load
from negvision.cli.main import main
from negvision.data.face_threshold import choose_threshold
from negvision.errors import DatasetError, UserError
from negvision.inference.runtime.metadata import KEY, Metadata, Preprocessing

PEOPLE = ("ann", "bob", "eve")


def write_model(path, gain=1.0):
    """A recognizer whose embedding is the image in 4 x 4 pixels; ``gain`` weighs its first half."""
    weights = ", ".join([f"{gain:g}"] * 24 + ["1"] * 24)
    text = f"""<ir_version: 10, opset_import: ["": 18]>
    pool (float[b, 3, 112, 112] image) => (float[b, 48] embeddings)
    <float[48] w = {{{weights}}}> {{
        small = AveragePool <kernel_shape = [28, 28], strides = [28, 28]> (image)
        flat = Flatten (small)
        embeddings = Mul (flat, w)
    }}"""
    graph = onnx.parser.parse_model(text)
    how = Preprocessing(scale=(112, 112), keep_ratio=False, mean=(127.5,) * 3, std=(127.5,) * 3)
    onnx.helper.set_model_props(graph, {KEY: Metadata("face", how).to_json()})
    onnx.save(graph, str(path))
    return path


def write_people(folder, count=3, people=PEOPLE, noise=20.0):
    """Images of people: a coarse pattern of each, and noise."""
    for number, name in enumerate(people):
        pattern = np.random.default_rng(number).integers(0, 256, (4, 4, 3)).astype(float)
        (folder / name).mkdir(parents=True)
        for image in range(count):
            rng = np.random.default_rng((number, image))
            pixels = np.clip(pattern + rng.normal(0, noise, pattern.shape), 0, 255)
            pixels = cv2.resize(pixels.astype(np.uint8), (112, 112), interpolation=0)
            cv2.imwrite(str(folder / name / f"{image}.png"), pixels)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("faces")
    write_model(root / "a.onnx")
    write_model(root / "other.onnx", gain=-1.0)
    write_people(root / "people")
    (root / "people" / "ann" / "._0.png").write_bytes(b"no image")
    (root / "people" / ".ipynb_checkpoints").mkdir()
    Gallery.enroll(load(root / "a.onnx"), root / "people", 2).save(root / "gallery")
    return root


def test_people_are_found_and_strangers_are_nobody(made, tmp_path):
    model, gallery = load(made / "a.onnx"), Gallery.load(made / "gallery")
    gallery.require_model(model)
    assert len(gallery) == 9 and list(gallery.people) == list(PEOPLE)
    write_people(tmp_path, people=("x", "bob"), count=4)
    stranger, bob = model.embed([tmp_path / "x" / "0.png", made / "people" / "bob" / "1.png"])
    best = gallery.search(bob, threshold=0.9)
    assert (best[0].name, best[0].file, best[0].known) == ("bob", "1.png", True)
    assert best[0].similarity == pytest.approx(1, abs=1e-5)
    assert [m.known for m in best[1:]] == [False] * 2
    assert gallery.search(bob, top=1)[0].known is None
    # "x" has the pattern of ann here, and numbers of "bob" that of bob: a stranger is neither.
    noise = np.random.default_rng(9).normal(size=48)
    assert gallery.search(noise, threshold=0.9)[0].known is False
    assert gallery.search(stranger)[0].name == "ann"


def test_search_is_exact():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(200, 8))
    names = [f"p{number:02d}" for number in rng.integers(0, 30, 200)]
    gallery = Gallery(names, vectors, files=[str(row) for row in range(200)])
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for query in rng.normal(size=(10, 8)):
        scores = unit @ query / np.linalg.norm(query)
        best = {name: max(s for n, s in zip(names, scores, strict=True) if n == name)
                for name in names}  # fmt: skip
        wanted = sorted(best, key=lambda name: -best[name])[:4]
        found = gallery.search(query, top=4)
        assert [match.name for match in found] == wanted
        np.testing.assert_allclose([m.similarity for m in found], [best[n] for n in wanted], 1e-5)
        assert all(names[int(match.file)] == match.name for match in found)


def test_commands_enroll_search_verify_and_embed(made, tmp_path, capsys):
    model, people, out = str(made / "a.onnx"), made / "people", str(tmp_path / "g")
    assert main(["enroll", str(people), "--model", model, "--out", out]) == 0
    assert "9 images of 3 people" in capsys.readouterr().out
    photo = str(people / "eve" / "2.png")
    assert main(["search", out, photo, "--top", "1", "--threshold", "0.9"]) == 0
    assert "1.0000  eve  2.png" in capsys.readouterr().out
    assert main(["search", out, photo, "--top", "1", "--threshold", "1.1"]) == 0
    assert "nobody; the most similar are" in capsys.readouterr().out
    other = str(people / "ann" / "0.png")
    assert main(["verify", photo, other, "--model", model, "--threshold", "0.9"]) == 0
    assert "two people (threshold 0.9, as given)" in capsys.readouterr().out
    assert main(["verify", photo, photo, "--model", model]) == 0
    assert "none (no threshold is known" in capsys.readouterr().out
    file = tmp_path / "e.npz"
    assert main(["embed", str(people / "ann"), "--model", model, "--out", str(file)]) == 0
    with np.load(file) as found:
        assert found["embeddings"].shape == (3, 48) and found["names"][0].endswith("0.png")


def test_threshold_is_stored_with_the_model_and_decides(made, tmp_path, capsys):
    people = write_people(tmp_path / "people", 4, [f"p{number}" for number in range(12)], 60.0)
    target = str(tmp_path / "c.onnx")
    arguments = ["calibrate-faces", str(people), "--model", str(made / "a.onnx"), "--out", target]
    assert main([*arguments, "--far", "0.02"]) == 0
    printed = capsys.readouterr().out
    assert "FAR        0.02 of 1,056 pairs of two people, 12 people" in printed
    assert "5: 0.096, 10: 0.18" in printed
    model = load(target)
    stored = model.face_threshold
    assert stored.low <= stored.value <= stored.high and stored.tar > 0.9
    assert model.verify(people / "p0" / "0.png", people / "p0" / "1.png").same is True
    assert model.verify(people / "p0" / "0.png", people / "p1" / "0.png").same is False
    assert main([*arguments, "--far", "1e-4"]) == 2
    assert "a threshold for FAR 0.0001 needs 100,000" in capsys.readouterr().err


def test_threshold_accepts_at_most_the_share():
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(60), rng.integers(1, 5, 60))
    centers = rng.normal(size=(60, 16))
    vectors = centers[people] + 0.7 * rng.normal(size=(len(people), 16))
    found = choose_threshold(vectors, people, 0.01)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    first, second = np.triu_indices(len(people), 1)
    scores, same = (unit[first] * unit[second]).sum(1), people[first] == people[second]
    accepted = (scores[~same] >= found.value).sum()
    assert found.pairs == (~same).sum() and accepted == int(0.01 * found.pairs)
    assert found.tar == pytest.approx((scores[same] >= found.value).mean())
    assert found.low < found.value < found.high and found.tar_low < found.tar < found.tar_high


def damage_text(folder):
    (folder / "gallery.json").write_text("{")


def damage_vectors(folder):
    file = folder / "embeddings.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def later_format(folder):
    about = json.loads((folder / "gallery.json").read_text())
    (folder / "gallery.json").write_text(json.dumps({**about, "format": 99}))


@pytest.mark.parametrize("change", [damage_text, damage_vectors, later_format])
def test_damaged_galleries_are_refused(made, tmp_path, change):
    Gallery.load(made / "gallery").save(tmp_path / "g")
    change(tmp_path / "g")
    with pytest.raises(DatasetError, match="the gallery is damaged"):
        Gallery.load(tmp_path / "g")


def test_bad_input_is_named(made, tmp_path, capsys):
    gallery, model = Gallery.load(made / "gallery"), load(made / "a.onnx")
    with pytest.raises(UserError, match=r"made by another model, .*a.onnx"):
        gallery.require_model(load(made / "other.onnx"))
    with pytest.raises(DatasetError, match=r"shape \(3,\)"):
        gallery.search(np.ones(3))
    with pytest.raises(DatasetError, match="without an image"):
        Gallery([], np.zeros((0, 3)))
    with pytest.raises(DatasetError, match="no gallery, since"):
        Gallery.load(tmp_path)
    with pytest.raises(DatasetError, match="no folder in it has an image"):
        Gallery.enroll(model, tmp_path)
    write_people(tmp_path / "people", 1)
    (tmp_path / "people" / "bob" / "bad.png").write_bytes(b"no image")
    arguments = ["enroll", str(tmp_path / "people"), "--model", str(made / "a.onnx"), "--out"]
    assert main([*arguments, str(tmp_path / "g")]) == 2
    assert "bad.png" in capsys.readouterr().err and not (tmp_path / "g").exists()
    assert main([*arguments, str(tmp_path / "g"), "--skip-bad"]) == 1
    assert len(Gallery.load(tmp_path / "g")) == 3


def test_photographs_are_aligned_by_the_detector(made, shared_data, tmp_path, capsys):
    yunet = str(shared_data / "weights/yunet/yunet_n_640_640.onnx")
    photos = shared_data / "lfw112/test_uncropped"
    one = cv2.imread(str(next(photos.glob("*/*_0001.jpg"))))
    folder = tmp_path / "photos"
    folder.mkdir()
    cv2.imwrite(str(folder / "one.png"), one)
    cv2.imwrite(str(folder / "two.png"), np.hstack([one, one]))
    cv2.imwrite(str(folder / "large.jpg"), cv2.resize(one, (1500, 1500)))
    cv2.imwrite(str(folder / "none.png"), np.zeros((200, 200, 3), np.uint8))
    out = tmp_path / "out"
    arguments = ["align", str(folder), "--out", str(out), "--face-detector", yunet]
    assert main(arguments) == 1
    assert "2 of 4 faces aligned" in capsys.readouterr().out
    listed = (out / "not_aligned.txt").read_text().splitlines()
    assert listed == ["none.png\timage without a face", "two.png\timage with several faces"]
    crop = cv2.imread(str(out / "one.png"))
    assert crop.shape == cv2.imread(str(out / "large.jpg")).shape == (112, 112, 3)
    detector = FaceDetector(yunet)
    points, large = (detector.find(cv2.resize(one, (s, s))).landmarks[0] for s in (250, 1500))
    assert np.abs(points - large / 6).max() < 6
    model = load(made / "a.onnx", face_detector=yunet)
    assert model.verify(folder / "one.png", folder / "large.jpg").similarity > 0.8
    np.testing.assert_allclose(
        model.embed([folder / "one.png"]), load(made / "a.onnx").embed([crop]), atol=1e-5
    )
    with pytest.raises(DatasetError, match=r"two.png: 2 faces were found"):
        model.embed([folder / "two.png"])
    with pytest.raises(DatasetError, match=r"none.png: no face was found"):
        model(folder / "none.png")
    command = ["predict", str(made / "a.onnx"), str(folder / "none.png"), "--face-detector", yunet]
    assert main([*command, "--out", str(tmp_path / "p")]) == 2
    assert "none.png: no face was found" in capsys.readouterr().err
    main_face = load(made / "a.onnx", face_detector=yunet, main_face=True)
    assert main_face.embed([folder / "two.png"]).shape == (1, 48)
    with pytest.raises(UserError, match="cannot be run by OpenCV's FaceDetectorYN"):
        load(made / "a.onnx", face_detector=made / "a.onnx")
