"""``on_bad_sample="skip"`` of the datasets of all tasks, counted where the main process sees it."""

import copy

import pytest
from helpers.dirty_sets import Boxes, Lists, Pixels, truncate
from torch.utils.data import DataLoader

from negvision.errors import DatasetError
from negvision.registry import DATASETS


def config_of(task, root):
    """The config of a set whose second image is truncated, and that image's name."""
    made = {"boxes": Boxes, "pixels": Pixels}.get(task, Lists)(root)
    truncate(made.files[1])
    if task == "records":
        return made.record_config(), f"{root}/list.rec[1]"
    if task in ("boxes", "pixels"):
        return made.config(), str(made.files[1])
    kind = {"faces": "FaceListDataset", "images": "ImageListDataset"}[task]
    return made.config(kind), str(made.files[1])


TASKS = ["boxes", "pixels", "faces", "records", "images"]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("task", TASKS)
def test_skipping_is_counted_over_workers(tmp_path, task, workers):
    config, name = config_of(task, tmp_path)
    dataset = DATASETS.build({**config, "on_bad_sample": "skip"})
    loader = DataLoader(dataset, batch_size=1, num_workers=workers, collate_fn=list)
    samples = [sample for _ in range(2) for batch in loader for sample in batch]
    assert len(samples) == 2 * len(dataset) and None not in samples
    # Its random replacement may be the image itself.
    assert dataset.skip_counts.times >= 2
    assert [dataset._sample_name(index) for index in dataset.skip_counts.samples()] == [name]


@pytest.mark.parametrize("options", [{}, {"on_bad_sample": "skip", "test_mode": True}])
@pytest.mark.parametrize("task", TASKS)
def test_an_error_elsewhere_names_the_image(tmp_path, task, options):
    config, name = config_of(task, tmp_path)
    dataset = DATASETS.build({**config, **options})
    with pytest.raises(DatasetError) as caught:
        dataset[1]
    assert str(caught.value).startswith(f"{name}: truncated JPEG")
    assert caught.value.kind == "truncated image"


def test_deep_copies_count_from_zero_and_shallow_copies_share_counts(tmp_path):
    config, _ = config_of("images", tmp_path)
    dataset = DATASETS.build({**config, "on_bad_sample": "skip"})
    deep, shallow = copy.deepcopy(dataset), copy.copy(dataset)
    dataset[1]
    assert deep.skip_counts.times == 0 < dataset.skip_counts.times == shallow.skip_counts.times
