"""The images of a data set are those of the evaluator's annotation file, or nothing runs."""

from types import SimpleNamespace

import pytest
from mmengine.dataset import BaseDataset, ConcatDataset, RepeatDataset
from mmengine.logging import MMLogger

from negvision.engine.image_check import check_images
from negvision.engine.metrics import OODMetricBase
from negvision.errors import ConfigError


class Images(BaseDataset):
    """Images by name, with the ids 1, 2, ... or ``first``, ..."""

    def __init__(self, *names, folder="data", ann_file="", first=1, is_ood=False):
        self.names, self.folder, self.first, self.is_ood = names, folder, first, is_ood
        super().__init__(ann_file=ann_file)

    def load_data_list(self):
        return [
            {"img_id": number, "img_path": f"{self.folder}/{name}", "is_ood": self.is_ood}
            for number, name in enumerate(self.names, self.first)
        ]


class Metric:
    def __init__(self, *names, ann_file="truth.json"):
        self.ann_file = ann_file
        images = [{"id": number, "file_name": name} for number, name in enumerate(names, 1)]
        self.ground_truth = {"images": images}


class OODMetric(Metric, OODMetricBase):
    def process(self, data_batch, data_samples):
        pass


class MMDetMetric:
    """mmdet's: without an annotation file, the truth comes from the samples."""

    def __init__(self, *names, annotations=()):
        images = {number: {"file_name": name} for number, name in enumerate(names, 1)}
        anns = dict(enumerate(annotations))
        self._coco_api = SimpleNamespace(imgs=images, anns=anns) if names else None


class OtherMetric:
    """Knows nothing of image ids."""


def check(dataset, *metrics):
    check_images(dataset, SimpleNamespace(metrics=metrics), "val")


@pytest.mark.parametrize(
    ("dataset", "metric"),
    [
        (Images("a.jpg", "b.jpg"), Metric("a.jpg", "b.jpg")),
        (Images("a.jpg"), Metric("a.jpg", "b.jpg")),
        # Other folders name the same image, unless names repeat.
        (Images("a.jpg", folder="x/val"), Metric("val/a.jpg")),
        (Images("val/a.jpg"), Metric("images/a.jpg")),
        (Images("1/0.jpg", "2/0.jpg"), Metric("1\\0.jpg", "2/./0.jpg")),
        (RepeatDataset(Images("a.jpg"), 2), Metric("a.jpg")),
        (
            ConcatDataset([Images("a.jpg"), Images("b.jpg", first=2)]),
            MMDetMetric("a.jpg", "b.jpg"),
        ),
        (ConcatDataset([Images("a.jpg"), Images("b.jpg", first=2)]), MMDetMetric()),
        (ConcatDataset([Images("a.jpg"), Images("b.jpg")]), OtherMetric()),
        ([0, 1, 2], Metric("a.jpg")),
    ],
)
def test_the_same_images_are_accepted(dataset, metric):
    check(dataset, metric)


@pytest.mark.parametrize("kind", [Metric, MMDetMetric])
@pytest.mark.parametrize(
    ("dataset", "listed", "found"),
    [
        (Images("b.jpg"), ["a.jpg"], "1 x image of another name in the file.*id 1.*data/b.jpg"),
        (Images("2/0.jpg"), ["1/0.jpg", "2/0.jpg"], "1 x image of another name"),
        (Images("a.jpg", "b.jpg"), ["a.jpg"], "1 x image that is not in the file.*id 2.*b.jpg"),
        (
            ConcatDataset([Images("a.jpg"), Images("b.jpg")]),
            ["a.jpg"],
            "1 x id of two images.*a.jpg and data/b.jpg",
        ),
    ],
)
def test_other_images_are_refused(kind, dataset, listed, found):
    with pytest.raises(ConfigError, match=rf"(?s)images of val are not.*{found}.*same ann_file"):
        check(dataset, OtherMetric(), kind(*listed))


def test_ids_of_several_files_must_differ_without_a_file_too():
    with pytest.raises(ConfigError, match="1 x id of two images"):
        check(ConcatDataset([Images("a.jpg"), Images("b.jpg")]), MMDetMetric())


def test_ids_of_ood_images_may_clash_but_not_the_images():
    unknown = Images("x.jpg", is_ood=True)
    check(ConcatDataset([Images("a.jpg"), unknown]), OODMetric("a.jpg"))
    with pytest.raises(ConfigError, match="1 x id of two images"):
        check(ConcatDataset([Images("a.jpg"), unknown]), Metric("a.jpg"))
    unknown = Images("x.jpg", "a.jpg", is_ood=True)
    with pytest.raises(ConfigError, match=r"1 x image that is in-distribution and OOD\n.*a\.jpg"):
        check(ConcatDataset([Images("a.jpg"), unknown]), OODMetric("a.jpg"))


def test_images_of_one_file_are_not_read(tmp_path, monkeypatch):
    file = tmp_path / "truth.json"
    monkeypatch.chdir(tmp_path)
    dataset = Images("a.jpg", ann_file=str(file))
    dataset.get_data_info = None
    check(dataset, Metric("a.jpg"))


def test_objects_that_mmdet_does_not_ignore_are_counted(caplog):
    annotations = [{"ignore": 1}, {"ignore": 1, "iscrowd": 1}, {"ignore": 0}, {}]
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    check(Images("a.jpg"), MMDetMetric("a.jpg", annotations=annotations))
    logger.removeHandler(caplog.handler)
    assert "1 annotations with ignore: 1 and no iscrowd count as objects" in caplog.text
