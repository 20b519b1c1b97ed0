"""The embedded glyphs as datasets."""

import numpy as np

from negvision.registry import DATASETS

GLYPHS = {
    "image_size": 24,
    "train_identities": 3, "val_identities": 2, "test_identities": 3,
    "train_images": 4, "val_images": 2, "test_images": 3,
    "val_pairs": 2, "test_pairs": 9,
}  # fmt: skip


def build(kind: str, **kwargs):
    pipeline = [{"type": "negvision.LoadImageFromFile"}, {"type": "negvision.PackFaceInputs"}]
    config = {"type": f"negvision.{kind}", "glyphs": GLYPHS, "pipeline": pipeline}
    return DATASETS.build({**config, **kwargs})


def test_generated_at_first_use(tmp_path, monkeypatch):
    monkeypatch.setenv("NEGVISION_DATA", str(tmp_path))
    train = build("GlyphListDataset")
    assert (tmp_path / "face_glyphs" / "train.txt").is_file()
    assert train.metainfo["num_classes"] == 3
    assert train.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert len(build("GlyphListDataset", ann_file="val.txt")) == 4
    assert train[5]["inputs"].shape == (3, 24, 24) and train[5]["data_samples"].label == 1


def test_pairs_refer_to_images_of_the_set(tmp_path):
    test = build("GlyphPairDataset", data_root=str(tmp_path / "glyphs"))
    pairs, same = test.metainfo["pairs"], test.metainfo["same"]
    assert pairs.shape == (18, 2) and same.tolist() == [True, False] * 9
    assert len(test) == len(np.unique(pairs)) == 9
    codes = [test.get_data_info(i)["img_path"].rpartition("/")[2][:4] for i in range(9)]
    assert [codes[a] == codes[b] for a, b in pairs] == same.tolist()
