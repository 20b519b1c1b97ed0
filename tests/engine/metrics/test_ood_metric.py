"""The shared base of OOD metrics: options, duplicates, the file, and the values."""

import numpy as np
import pytest
from mmengine.logging import MMLogger

from negvision.engine.metrics import OODMetricBase
from negvision.errors import OODDataError
from negvision.ood.records import OODRecords


class ImageScores(OODMetricBase):
    """A minimal subclass with one score per image."""

    def process(self, data_batch, data_samples):
        for sample in data_samples:
            self.results.append((sample["img_path"], sample))

    def records(self, results):
        return OODRecords(
            task="images",
            scores={"abet": np.array([r["score"] for r in results], np.float32)},
            is_ood=np.array([r["is_ood"] for r in results]),
            image=np.arange(len(results)),
            paths=[r["img_path"] for r in results],
            classes=["a"],
            notes={"accuracy": 0.75},
        )


def samples(count, kinds=2):
    return [
        {"img_path": f"{i}.jpg", "score": i * 7 % 10, "is_ood": i % 2 < kinds - 1}
        for i in range(count)
    ]


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def evaluated(of, **options):
    metric = ImageScores(resamples=5, **options)
    metric.process(None, of)
    return metric.evaluate(len(of))


def test_repeated_images_count_once():
    expected = evaluated(samples(10))
    assert evaluated(samples(10) + samples(4)) == expected
    assert expected["ood/num_ood"] + expected["ood/num_id"] == 10
    assert expected["ood/accuracy"] == 0.75


def test_scores_file_is_next_to_the_log(tmp_path):
    (tmp_path / "run").mkdir()
    logger = MMLogger.get_instance("ood-metric", log_file=str(tmp_path / "run" / "a.log"))
    assert MMLogger.get_current_instance() is logger
    evaluated(samples(10))
    stored = OODRecords.load(tmp_path / "run" / "ood_scores.npz")
    assert stored.paths == [f"{i}.jpg" for i in range(10)]
    assert "AUROC" in (tmp_path / "run" / "a.log").read_text()


def test_no_file_if_not_requested(tmp_path):
    evaluated(samples(10), scores_file=None)
    # The folder through which ranks exchange results may stay.
    assert not list(tmp_path.glob("**/*.npz"))


def test_only_one_kind_is_an_error():
    with pytest.raises(OODDataError, match="there is no OOD sample"):
        evaluated(samples(10, kinds=1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scores": ["mps"]}, "score must be one of .*, got 'mps'; nearest: 'msp'"),
        ({"resamples": 0}, "resamples must be at least 1, got 0"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        ImageScores(**options)
