"""Images skipped in training reach the log, whichever process skipped them."""

import json
import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset, ConcatDataset, RepeatDataset
from mmengine.model import BaseModel
from torch.utils.data import DataLoader

from negvision.data.images.bad_samples import BadSampleMixin, SkipCounts
from negvision.engine.bad_sample_hook import skipping_datasets
from negvision.engine.runner import Runner
from negvision.errors import DatasetError


class Numbers(BadSampleMixin, BaseDataset):
    """Twelve samples, those of ``bad`` unusable."""

    def __init__(self, bad=(2, 7), size=12, **kwargs):
        self.bad, self.size = set(bad), size
        super().__init__(**kwargs)

    def load_data_list(self):
        return [{"img_path": f"{index}.png"} for index in range(self.size)]

    def get_data_info(self, idx):
        info = super().get_data_info(idx)
        if info["sample_idx"] in self.bad:
            raise DatasetError(f"{info['img_path']}: truncated")
        return {"inputs": torch.ones(1)}

    def _sample_name(self, idx):
        return f"{idx}.png"


class Line(BaseModel):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, inputs, mode):
        return {"loss": (torch.stack(inputs) * self.weight).sum()}


def train(dataset, folder, by_epoch=True, **loader):
    """Three epochs, or as many iterations; the dataset of the run."""
    length = (
        {"by_epoch": True, "max_epochs": 3} if by_epoch else {"by_epoch": False, "max_iters": 9}
    )
    runner = Runner(
        Line(),
        str(folder),
        train_dataloader={
            "dataset": dataset,
            "batch_size": 4,
            "sampler": {"type": "DefaultSampler" if by_epoch else "InfiniteSampler"},
            "collate_fn": {"type": "pseudo_collate"},
            **loader,
        },
        train_cfg=length,
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.01}},
        default_hooks={
            "logger": {"type": "negvision.ProgressHook", "interval": 3},
            "bad_samples": {"type": "negvision.BadSampleHook"},
            "checkpoint": None,
        },
        log_processor={"by_epoch": by_epoch},
        experiment_name=folder.name,
        default_scope="mmengine",
        # With some seeds, a rank of two meets no bad sample.
        randomness={"seed": 0},
    )
    runner.train()
    return runner.train_dataloader.dataset


def scalars(folder) -> list[dict]:
    (file,) = folder.rglob("scalars.json")
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.parametrize("by_epoch", [True, False])
@pytest.mark.parametrize(
    "loader",
    [
        {"num_workers": 0},
        {"num_workers": 2},
        {"num_workers": 2, "persistent_workers": True},
    ],
    ids=["no workers", "workers", "persistent"],
)
def test_counts_of_all_workers_are_logged(tmp_path, loader, by_epoch):
    dataset = train(Numbers(on_bad_sample="skip"), tmp_path, by_epoch, **loader)
    logged = [entry["skipped_images"] for entry in scalars(tmp_path) if "loss" in entry]
    # A replacement may be unusable as well, so there are two an epoch or more.
    assert len(logged) == 3 and logged == sorted(logged) and logged[-1] >= 6
    (log,) = tmp_path.rglob("*.log")
    text = log.read_text()
    [times] = map(int, re.findall(r"unusable images were replaced (\d+) times", text))
    # Workers of an endless sampler go on loading, also after the end.
    assert logged[-1] <= times <= dataset.skip_counts.times
    if by_epoch:
        assert logged[0] >= 2 and logged[-1] == dataset.skip_counts.times
    assert "2 images are unusable:\n  2.png\n  7.png" in text
    # Each process names an image once, at its first.
    assert "2.png: truncated" in text


def train_on_rank(rank, folder):
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    dataset = train(Numbers(bad=(2, 7 + rank), on_bad_sample="skip"), folder, num_workers=1)
    (folder / f"times_{rank}").write_text(str(dataset.skip_counts.times))
    torch.distributed.destroy_process_group()


def test_counts_are_summed_over_ranks(tmp_path):
    torch.multiprocessing.start_processes(train_on_rank, (tmp_path,), nprocs=2, start_method="fork")
    times = [int((tmp_path / f"times_{rank}").read_text()) for rank in range(2)]
    assert min(times) > 0
    assert scalars(tmp_path)[-1]["skipped_images"] == sum(times)
    text = "".join(path.read_text() for path in tmp_path.rglob("*.log"))
    assert text.count(f"replaced {sum(times)} times") == 1
    seen = [name for name in ("2.png", "7.png", "8.png") if f"\n  {name}" in text]
    assert len(seen) >= 2


@pytest.mark.parametrize(("mode", "logged"), [("error", [None] * 3), ("skip", [0] * 3)])
def test_clean_dataset(tmp_path, mode, logged):
    train(Numbers(bad=(), on_bad_sample=mode), tmp_path, num_workers=0)
    assert [entry.get("skipped_images") for entry in scalars(tmp_path)] == logged
    text = next(tmp_path.rglob("*.log")).read_text()
    assert ("no training image was skipped" in text) == (mode == "skip")


RUNTIMES = sorted((Path(__file__).parents[2] / "configs/_base_").glob("*runtime.py"))


@pytest.mark.parametrize("path", RUNTIMES, ids=lambda path: path.stem)
def test_every_runtime_has_the_hook(path):
    hooks = Config.fromfile(path).default_hooks.values()
    assert sum(hook["type"] == "negvision.BadSampleHook" for hook in hooks) == 1


def test_datasets_are_found_in_wrappers():
    sets = [Numbers(on_bad_sample="skip"), Numbers(), Numbers(on_bad_sample="skip", bad=())]
    assert list(skipping_datasets(ConcatDataset(sets))) == [sets[0], sets[2]]
    assert list(skipping_datasets(RepeatDataset(sets[0], 3))) == [sets[0]]


def test_every_worker_has_its_own_counter():
    """Eight workers that add at the same time lose nothing, as one counter would."""

    class Adding(torch.utils.data.Dataset):
        counts = SkipCounts()

        def __len__(self):
            return 8

        def __getitem__(self, index):
            for _ in range(200):
                self.counts.add(index)
            return index

    dataset = Adding()
    list(DataLoader(dataset, num_workers=8, batch_size=1))
    assert dataset.counts.times == 1600 and dataset.counts.samples() == list(range(8))


def test_too_many_bad_samples_in_a_row_end_the_run():
    dataset = Numbers(bad=range(11), on_bad_sample="skip", max_refetch=500)
    for _ in range(200):
        dataset[0]  # the good image resets the count
    assert dataset.skip_counts.times > 500
    dataset = Numbers(bad=range(12), on_bad_sample="skip", max_refetch=20)
    with pytest.raises(DatasetError, match=r"21 images in a row .*\d+\.png: truncated"):
        dataset[0]


@pytest.mark.parametrize("options", [{}, {"on_bad_sample": "skip", "test_mode": True}])
def test_unusable_image_is_an_error_by_default(options):
    dataset = Numbers(**options)
    assert dataset.skip_counts is None
    with pytest.raises(DatasetError, match=r"2\.png"):
        dataset[2]
