"""Statistics of the history of a training."""

import numpy as np
import pytest

from negvision.audit.history import found_objects, mine_bad_pairs
from negvision.data.sample_history import FOUND, ROWS, SampleHistory
from negvision.errors import DatasetError


def oracle(table, beta):
    """The definition of Lan et al., one sample after another."""
    memories = [[v for v in row if not np.isnan(v)] for row in table]
    means = [sum(m) / len(m) if m else None for m in memories]
    known = [m for m in means if m is not None]
    mu = sum(known) / len(known)
    sigma = (sum((m - mu) ** 2 for m in known) / len(known)) ** 0.5
    weights = []
    for mean in means:
        bad = mean is not None and (mean < mu - beta * sigma or mean > mu + beta * sigma)
        weights.append(np.exp(-((mean - mu) ** 2) / (2 * sigma**2)) if bad else 1.0)
    return np.array(weights)


@pytest.mark.parametrize("beta", [0.0, 0.7, 2.0, 9.0])
def test_weights_follow_the_definition(beta):
    rng = np.random.default_rng(0)
    table = rng.exponential(size=(60, 7))
    table[rng.random(table.shape) < 0.3] = np.nan
    table[:2] = np.nan
    found = mine_bad_pairs(table, beta)
    assert found.weight == pytest.approx(oracle(table, beta), rel=1e-9)
    assert (found.suspect == (found.weight < 1)).all()
    assert np.isnan(found.deviation[:2]).all() and not found.suspect[:2].any()


@pytest.mark.parametrize(
    "table", [np.zeros((0, 3)), np.full((3, 2), np.nan), np.ones((4, 2)), [[3.0]], np.ones((2, 0))]
)
def test_nothing_is_suspect_without_differences(table):
    found = mine_bad_pairs(table)
    assert not found.suspect.any() and (found.weight == 1).all()


def test_found_objects_persist_or_pass():
    columns = {
        "annotation": [1, 1, 1, 1],
        "epoch": [0, 1, 2, 3],
        # An object of image 5 in all epochs, twice in epoch 1; noise in image 5 and in image 6.
        "found_image": [5, 5, 5, 5, 5, 5, 6],
        "found_epoch": [0, 1, 1, 2, 3, 2, 0],
        "found_class": [0, 1, 0, 1, 1, 2, 0],
        "found_score": [0.2, 0.4, 0.3, 0.6, 0.8, 0.4, 0.9],
        "found_box": [[0, 0, 10, 10]] * 5 + [[30, 30, 40, 40], [7, 7, 7, 7]],
    }
    found = found_objects(SampleHistory.of("detection", "", (), **columns))
    assert found.image.tolist() == [5, 6, 5]
    assert found.label.tolist() == [1, 0, 2]
    assert found.score == pytest.approx([0.5, 0.225, 0.1])
    assert (found.epochs.tolist(), found.first.tolist()) == ([4, 1, 1], [0, 0, 2])
    assert found.box[0].tolist() == [0, 0, 10, 10]
    empty = found_objects(SampleHistory.of("detection", "", ()))
    assert len(empty.image) == 0 and empty.box.shape == (0, 4)


def test_a_file_is_read_as_it_was_written(tmp_path):
    rng = np.random.default_rng(0)
    columns = {name: rng.integers(9, size=5).astype(kind) for name, kind in ROWS.items()}
    columns |= {name: rng.integers(9, size=3).astype(kind) for name, kind in FOUND.items()}
    columns["found_box"] = rng.random((3, 4), np.float32)
    history = SampleHistory.of("detection", "ab", ("cat", "ü"), **columns)
    history.save(tmp_path / "a.npz")
    back = SampleHistory.load(tmp_path / "a.npz")
    assert (back.task, back.digest, back.classes) == ("detection", "ab", ("cat", "ü"))
    for name, values in columns.items():
        assert np.array_equal(getattr(back, name), values)
        assert getattr(back, name).dtype == (ROWS | FOUND)[name]
    assert back.before(4).joined(back).epoch.tolist() == [
        *(e for e in columns["epoch"] if e < 4), *columns["epoch"],
    ]  # fmt: skip


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    with pytest.raises(DatasetError, match=r"no such file\. negvision train --history writes it"):
        SampleHistory.load(path)
    for content in (b"", b"PK\3\4 broken", b"text"):
        path.write_bytes(content)
        with pytest.raises(DatasetError, match="damaged"):
            SampleHistory.load(path)
    np.savez(path, annotation=np.array([{}], object))
    with pytest.raises(DatasetError, match="damaged"):
        SampleHistory.load(path)
