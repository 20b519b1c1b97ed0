"""Records of scored samples: their file, metrics, strata and table."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from negvision.errors import UserError
from negvision.ood import ood_metrics
from negvision.ood.records import OODRecords, evaluate_records, per_image_values, stratum_gap


def some_records(**changes):
    rng = np.random.default_rng(0)
    count = 300
    is_ood = rng.random(count) < 0.4
    return OODRecords(
        **{
            "task": "boxes",
            "scores": {
                "abet": (rng.normal(size=count) + is_ood).astype(np.float32),
                "msp": rng.random(count).astype(np.float32),
            },
            "is_ood": is_ood,
            "image": rng.integers(0, 30, count),
            "paths": [f"images/{index}.jpg" for index in range(30)],
            "classes": ["ace", "jack ♣"],
            "boxes": rng.random((count, 4)).astype(np.float32),
            "labels": rng.integers(0, 2, count),
            "strata": {"box size": (["small", "large", "none"], rng.integers(0, 2, count))},
            "notes": {"id_ap": 0.5, "class-score threshold": 0.31, "boxes": 300, "by": "hand"},
            **changes,
        }
    )


def test_records_survive_a_file(tmp_path):
    records = some_records(
        task="pixels", weights=np.arange(300.0), heat={7: np.ones((2, 3), np.float32)}
    )
    found = OODRecords.load(records.save(tmp_path / "new" / "scores.dat"))
    assert [path.name for path in tmp_path.glob("*/*")] == ["scores.dat"]
    for name in ("is_ood", "image", "weights", "boxes", "labels"):
        np.testing.assert_array_equal(getattr(found, name), getattr(records, name))
    for name in ("task", "classes", "paths", "notes"):
        assert getattr(found, name) == getattr(records, name)
    assert list(found.scores) == ["abet", "msp"]
    np.testing.assert_array_equal(found.scores["msp"], records.scores["msp"])
    names, codes = found.strata["box size"]
    assert names == ["small", "large", "none"]
    np.testing.assert_array_equal(codes, records.strata["box size"][1])
    np.testing.assert_array_equal(found.heat[7], np.ones((2, 3)))


def test_pickles_are_not_loaded(tmp_path):
    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    np.savez(tmp_path / "bad.npz", meta=np.array(Payload(), dtype=object))
    with pytest.raises(UserError, match=r"bad\.npz does not hold OOD scores"):
        OODRecords.load(tmp_path / "bad.npz")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip", b"\x93NUMPY"])
def test_other_files_are_rejected(tmp_path, content):
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(UserError, match="does not hold OOD scores"):
        OODRecords.load(tmp_path / "x.npz")
    with pytest.raises(UserError, match=r"y\.npz: there is no such file"):
        OODRecords.load(tmp_path / "y.npz")


def test_scalars_of_each_score():
    records = some_records()
    evaluation = evaluate_records(records, resamples=20)
    scalars = evaluation.scalars()
    assert scalars["auroc"] == pytest.approx(roc_auc_score(records.is_ood, records.scores["abet"]))
    assert scalars["msp/auroc"] == pytest.approx(
        roc_auc_score(records.is_ood, records.scores["msp"])
    )
    assert scalars["id_ap"] == 0.5 and scalars["boxes"] == 300 and "by" not in scalars
    expected = ood_metrics(
        torch.from_numpy(records.scores["abet"]),
        torch.from_numpy(records.is_ood),
        torch.from_numpy(records.image),
        resamples=20,
    )
    assert evaluation.by_score["abet"].intervals == expected.intervals


def test_strata_partition_the_samples():
    records = some_records()
    parts = evaluate_records(records, resamples=1).strata["box size"]
    codes = records.strata["box size"][1]
    for code, part in enumerate(parts[:2]):
        rows = codes == code
        assert part.num_ood == records.is_ood[rows].sum()
        assert part.metrics.auroc == pytest.approx(
            roc_auc_score(records.is_ood[rows], records.scores["abet"][rows])
        )
    assert parts[2].metrics is None and (parts[2].num_ood, parts[2].num_id) == (0, 0)
    expected = abs(parts[0].metrics.auroc - parts[1].metrics.auroc)
    assert stratum_gap(parts, "auroc") == expected
    assert stratum_gap(parts[1:], "auroc") is None


def test_values_of_single_images():
    records = some_records()
    found = per_image_values(records)
    for index in range(30):
        rows = records.image == index
        kinds = records.is_ood[rows]
        if 0 < kinds.sum() < len(kinds):
            expected = roc_auc_score(kinds, records.scores["abet"][rows])
            assert found.pop(index).auroc == pytest.approx(expected)
    assert not found


def test_the_table_names_directions_and_chance_levels():
    table = evaluate_records(some_records(), resamples=20).table()
    assert "OOD is positive and a higher score is more OOD" in table
    assert "prevalence 0.3" in table and "FPR95 ood+" in table and "FPR95 id+" in table
    assert "id_ap: 0.5000" in table and "boxes: 300" in table and "gap" in table
    assert max(map(len, table.splitlines())) <= 100
