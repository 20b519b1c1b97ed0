"""A model predicts the same from its export and its config, on files and on arrays."""

import dataclasses
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.small_models import build_model, load_named_config, write_images
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData, PixelData
from PIL import Image

from negvision.data.formats.coco_masks import from_run_lengths
from negvision.errors import CheckpointError, ConfigError, DatasetError, ExportError, UserError
from negvision.inference import torch_model
from negvision.inference.inferencer import Inferencer
from negvision.inference.pipeline import read_preprocessing
from negvision.inference.prediction import Prediction
from negvision.inference.runtime import Classification, Detections, Embedding, LabelMap

CONFIGS = Path(__file__).parents[2] / "configs/quickstart"
BOXES, PIXELS, IMAGES, FACES, PLAIN = (
    CONFIGS / name
    for name in (
        *("abet_boxes.py", "abet_pixels.py", "abet_images.py", "unpg_glyphs.py", "atss_digits.py"),
    )
)


def _same(one, other, **tolerance):
    assert type(one) is type(other)
    for field in dataclasses.fields(one):
        own, others = getattr(one, field.name), getattr(other, field.name)
        assert (own is None) == (others is None), field.name
        if own is not None:
            np.testing.assert_allclose(own, others, err_msg=field.name, **tolerance)


@pytest.fixture
def faces(tmp_path):
    return write_images(tmp_path / "faces", **dict.fromkeys(("a_png", "b_png", "c_png"), (32, 32)))


@pytest.mark.parametrize(
    ("config", "name", "task", "kind"),
    [
        (BOXES, "abet", "detection", Detections),
        (PIXELS, "pixels", "segmentation", LabelMap),
        (IMAGES, "images", "classification", Classification),
        (FACES, "face", "face", Embedding),
    ],
)
def test_config_and_export_agree(
    exported, checkpoints, image_files, faces, config, name, task, kind
):
    files = faces if task == "face" else image_files
    ours = Inferencer(exported(name))
    theirs = Inferencer(config, checkpoints(name))
    assert ours.task == theirs.task == task
    assert ours.classes == theirs.classes or not theirs.classes
    assert ours.ood_score == theirs.ood_score == (None if task == "face" else "abet")
    arrays = [theirs.decode(Path(file).read_bytes(), file) for file in files]
    wanted = theirs.predict(files, batch_size=2)
    assert len(wanted) == 3 and all(isinstance(one, kind) for one in wanted)
    if kind is Detections:
        assert all(len(one) > 20 for one in wanted)
    close = {"rtol": 1e-3, "atol": 2e-3}
    for results, limits in (
        (theirs.predict(arrays, batch_size=2), {"rtol": 0}),
        (ours.predict(files, batch_size=2), close),
        (ours.predict(arrays, batch_size=2), close),
    ):
        for one, other in zip(results, wanted, strict=True):
            _same(one, other, **limits)


def test_thresholds_are_applied(exported, image_files):
    plain = Inferencer(exported("abet"))
    [found] = plain.predict(image_files[:1])
    assert plain.score_threshold is plain.ood_threshold is found.unknown is None
    score, ood = float(np.median(found.scores)), float(np.median(found.ood_scores))
    limited = Inferencer(exported("abet"), score_threshold=score, ood_threshold=ood)
    [fewer] = limited.predict(image_files[:1])
    kept = found.scores >= np.float32(score)
    assert 0 < len(fewer) == kept.sum() < len(found)
    assert np.array_equal(fewer.boxes, found.boxes[kept])
    assert np.array_equal(fewer.unknown, found.ood_scores[kept] > ood)
    assert {True, False} == set(fewer.unknown.tolist())


def test_checkpoint_has_threshold_and_classes(checkpoints, tmp_path, image_files):
    content = torch.load(checkpoints("abet"))
    names = [f"name {number}" for number in range(8)]
    content["meta"] = {
        "ood": {"value": -2.5, "score": "abet", "tpr": 0.95, "num_samples": 100, "min_score": 0.3},
        "dataset_meta": {"classes": names},
    }
    torch.save(content, tmp_path / "calibrated.pth")
    model = Inferencer(BOXES, tmp_path / "calibrated.pth")
    assert model.ood_threshold == -2.5 and model.classes == tuple(names)
    [found] = model.predict(image_files[:1])
    assert np.array_equal(found.unknown, found.ood_scores > -2.5)
    other = Inferencer(BOXES, tmp_path / "calibrated.pth", ood_threshold=1e9)
    assert not other.predict(image_files[:1])[0].unknown.any()


def test_conflicting_arguments(exported, checkpoints, tmp_path):
    with pytest.raises(ConfigError, match=r"\.onnx contains its weights"):
        Inferencer(exported("face"), "a.pth")
    with pytest.raises(CheckpointError, match=r"abet_boxes\.py is a config.*Give a checkpoint"):
        Inferencer(BOXES)
    with pytest.raises(ConfigError, match=r"a\.pth is neither an exported model"):
        Inferencer("a.pth", BOXES)
    with pytest.raises(ExportError, match="does not exist"):
        Inferencer("nowhere.onnx")
    with pytest.raises(ConfigError, match=r"nowhere\.py"):
        Inferencer("nowhere.py", checkpoints("abet"))
    with pytest.raises(CheckpointError, match="lacks"):
        Inferencer(PLAIN, checkpoints("pixels"))
    (tmp_path / "empty.py").write_text("default_scope = 'mmdet'\n")
    with pytest.raises(ConfigError, match=r"empty\.py' has no model"):
        Inferencer(tmp_path / "empty.py", checkpoints("abet"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score_threshold": 1.5}, "score threshold 1.5: give a number from 0 to 1"),
        ({"score_threshold": float("nan")}, "score threshold nan"),
        ({"ood_threshold": float("nan")}, "OOD threshold nan"),
        ({"ood_threshold": 0.5}, r"\.onnx has no OOD score"),
        ({"device": "tpu"}, "device 'tpu': exported models run on cpu, cuda or cuda:NUMBER"),
    ],
)
def test_invalid_options(exported, options, message):
    with pytest.raises(UserError, match=message):
        Inferencer(exported("face"), **options)


@pytest.mark.parametrize(("device", "end"), [("sun", "give cpu"), ("cuda:99", "torch finds")])
def test_missing_devices(checkpoints, device, end):
    with pytest.raises(UserError, match=f"device '{device}': {end}"):
        Inferencer(FACES, checkpoints("face"), device=device)


def test_checkpoint_runs_no_code(tmp_path):
    class Touch:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    path = tmp_path / "evil.pth"
    torch.save({"state_dict": {}, "meta": Touch()}, path, pickle_module=pickle)
    with pytest.raises(CheckpointError, match="--trust-checkpoint"):
        Inferencer(FACES, path)
    assert not (tmp_path / "ran").exists()


def test_model_of_another_task_is_refused():
    with pytest.raises(ConfigError, match=r"Module is not a detector.*negvision test"):
        torch_model.task_of(torch.nn.Module())


def test_classifier_names_the_best_classes_of_an_image(exported, image_files):
    model = Inferencer(exported("images"), top=3, ood_threshold=-1e9)
    one = model(image_files[0])
    assert one.probs.sum() == pytest.approx(1, abs=1e-6) and len(one.probs) == len(model.classes)
    assert one.labels.tolist() == np.argsort(-one.probs)[:3].tolist() and len(one) == 3
    assert one.names == [model.classes[label] for label in one.labels] and one.unknown is True
    assert one.scores.tolist() == sorted(one.probs.tolist())[:-4:-1]
    first, *_ = json.loads(one.to_json())
    score, ood = one.scores[0], one.result.ood_score
    assert first == {
        "name": one.names[0],
        "label": int(one.labels[0]),
        "unknown": True,
        "ood_score": ood,
        "score": pytest.approx(score, abs=1e-4),
    }
    assert one.to_pandas()["name"].tolist() == one.names and one.plot().shape[2] == 3
    labels, scores = one.to_supervision().get_top_k(3)
    assert labels.tolist() == one.labels.tolist() and scores.tolist() == one.scores.tolist()
    for wrong, message in (
        (lambda: one.boxes, r"finds no boxes: its result is the probabilities of classes"),
        (lambda: one.embedding, "gives no embedding"),
        (
            lambda: Inferencer(exported("images"), score_threshold=0.5),
            r"is a classifier.*\(--top\)",
        ),
        (lambda: Inferencer(exported("images"), top=0), "top 0: give the number of classes"),
        (lambda: Inferencer(exported("face"), top=2), r"is for face; top 2 is how many"),
    ):
        with pytest.raises(UserError, match=message):
            wrong()


def test_face_recognizer_gives_an_embedding(exported, faces):
    one, other, _ = Inferencer(exported("face"))(faces)
    assert one.embedding.ndim == 1 and one.result.similarity(one.result) == pytest.approx(1)
    assert not np.array_equal(one.embedding, other.embedding)
    with pytest.raises(UserError, match="classifies no images: its result is an embedding"):
        _ = one.probs


@pytest.mark.parametrize("form", ["exported", "config"])
def test_invalid_images_are_named(exported, checkpoints, tmp_path, form):
    arguments = [exported("abet")] if form == "exported" else [BOXES, checkpoints("abet")]
    model = Inferencer(*arguments)
    (tmp_path / "text.png").write_text("no image")
    for source in (tmp_path / "text.png", tmp_path / "nowhere.png"):
        with pytest.raises(DatasetError, match=source.name):
            model.predict([source])
    with pytest.raises(DatasetError, match="text"):
        model.decode(b"text", "text")
    with pytest.raises(ValueError, match="batch_size is 0"):
        model.predict([np.zeros((4, 4, 3), np.uint8)], 0)


def test_photographs_of_pil_are_turned_like_their_files(exported, tmp_path):
    model = Inferencer(exported("abet"))
    exif = Image.Exif()
    exif[0x112] = 6
    for suffix in (".jpg", ".tiff"):
        file = tmp_path / f"a{suffix}"
        Image.new("RGB", (90, 60)).save(file, exif=exif)
        with Image.open(file) as opened:
            assert model(opened).image.shape == model(file).image.shape == (90, 60, 3)
    how = dataclasses.replace(model._model.metadata.preprocessing, as_stored=True)
    model._model.metadata = dataclasses.replace(model._model.metadata, preprocessing=how)
    with Image.open(tmp_path / "a.jpg") as opened:
        assert model(opened).image.shape == model(tmp_path / "a.jpg").image.shape == (60, 90, 3)


def test_folders_are_read_without_what_is_damaged_on_request(exported, tmp_path, caplog):
    write_images(tmp_path / "in", a_png=(64, 64), b_png=(64, 64))
    (tmp_path / "in/b.png").write_bytes(b"")
    (tmp_path / "in/c.heic").write_bytes(b"")
    model = Inferencer(exported("abet"))
    with pytest.raises(DatasetError, match=r"b\.png: the file is empty"):
        model(tmp_path / "in")
    caplog.clear()
    [found] = model(tmp_path / "in", skip_bad=True)
    assert found.source.endswith("a.png")
    passed, left = caplog.messages
    assert passed == f"{tmp_path}/in: passed over: 1 .heic"
    assert left.startswith(f"left out: {tmp_path}/in/b.png: the file is empty")


def test_masks_are_among_the_records_of_a_prediction():
    masks = np.zeros((1, 6, 8), bool)
    masks[0, 2:4, 1:5] = True
    found = Detections(np.array([[1.0, 2, 5, 4]]), np.array([0.9]), np.array([0]), masks=masks)
    one = Prediction(np.zeros((6, 8, 3), np.uint8), "a.jpg", found, ("cat",))
    assert one.masks is masks
    [decoded] = from_run_lengths([one.to_records()[0]["segmentation"]])
    np.testing.assert_array_equal(decoded, masks[0])


def test_masks_of_a_sample_are_kept_and_other_results_refused():
    masks = torch.zeros(1, 4, 5, dtype=torch.bool)
    fields = {"bboxes": torch.zeros(1, 4), "scores": torch.ones(1), "labels": torch.zeros(1).int()}
    sample = DetDataSample(pred_instances=InstanceData(**fields, masks=masks))
    assert torch_model._result(sample, None).masks.shape == (1, 4, 5)
    sample.pred_panoptic_seg = PixelData(sem_seg=torch.zeros(1, 4, 5))
    with pytest.raises(ConfigError, match="the model predicts pred_instances, pred_panoptic_seg;"):
        torch_model._result(sample, None)


@pytest.mark.parametrize(
    ("color_type", "height", "exportable"),
    [("color", 30, True), ("color_ignore_orientation", 20, True), ("grayscale", 30, False)],
)
def test_files_are_read_and_exported_as_the_pipeline_reads_them(
    tmp_path, color_type, height, exportable
):
    cfg = load_named_config("atss")
    cfg.test_dataloader.dataset.pipeline[0].color_type = color_type
    network = build_model(cfg)
    exif = Image.Exif()
    exif[0x112] = 6
    file = tmp_path / "a.webp"
    Image.new("RGB", (30, 20)).save(file, exif=exif)
    model = torch_model.TorchModel(cfg, network)
    pixels = model.decode(file.read_bytes(), "a")
    assert pixels.shape == (height, 50 - height, 3)
    one, other = (model._packed(source) for source in (file, pixels))
    assert torch.equal(one["inputs"], other["inputs"])
    assert one["data_samples"].ori_shape == pixels.shape[:2]
    if exportable:
        assert read_preprocessing(cfg, network).as_stored is (height == 20)
        return
    with pytest.raises(ExportError, match="color_type='grayscale'; exported models support"):
        read_preprocessing(cfg, network)
