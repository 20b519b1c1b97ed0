"""PairScoreHook in small trainings."""

import json

import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import DefaultScope
from torch import nn
from torch.utils.data import DataLoader

from negvision.engine.checkpoints.loading import load_checkpoint_file
from negvision.engine.runner import Runner
from negvision.errors import ConfigError
from negvision.face import pair_score_hook as hooks
from negvision.face.pair_score_hook import PairScoreHook
from negvision.face.pair_scores import pair_scores
from negvision.face.recognizer import FaceRecognizer
from negvision.face.structures import FaceDataSample
from negvision.registry import MODELS
from negvision.report.train_log import read_train_log


@MODELS.register_module(name="TinyFaceBackbone", force=True)
class TinyFaceBackbone(nn.Sequential):
    """Has layers that an additional forward pass would disturb."""

    def __init__(self):
        super().__init__(
            nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(0.3),
            nn.Linear(36, 5),
        )  # fmt: skip


def a_model(**head):
    torch.manual_seed(0)
    sizes = {"num_classes": 6, "embedding_size": 5, "scale": 8.0}
    head = {"type": "negvision.UNPGLoss", **sizes, **head}
    return FaceRecognizer({"type": "negvision.TinyFaceBackbone"}, head=head)


def samples(labels):
    generator = torch.Generator().manual_seed(1)
    return [
        {
            "inputs": torch.randint(256, (3, 8, 8), generator=generator, dtype=torch.uint8),
            "data_samples": FaceDataSample(label=torch.tensor(label)),
        }
        for label in labels
    ]


PROGRESS = {"type": "negvision.ProgressHook", "interval": 1, "bar": False}
LABELS = [0, 0, 1, 1, 2, 3, 0, 1, 2, 3, 4, 5, 5, 5, 2, 2, 1, 0]


@pytest.fixture
def train(tmp_path):
    """Train with three iterations per epoch; each run of a process needs its own name."""
    runs = []

    def run(hook=None, labels=LABELS, model=None, epochs=2, work="work", **kwargs):
        runs.append(f"{tmp_path.name}_{len(runs)}")
        torch.manual_seed(0)
        runner = Runner(
            model=model or a_model(),
            work_dir=str(tmp_path / work),
            train_dataloader=DataLoader(
                samples(labels), batch_size=len(labels) // 3, collate_fn=pseudo_collate
            ),
            train_cfg={"by_epoch": True, "max_epochs": epochs},
            optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.1}},
            default_hooks={"logger": PROGRESS},
            custom_hooks=[] if hook is None else [{"type": "negvision.PairScoreHook", **hook}],
            visualizer={
                "type": "Visualizer",
                "name": runs[-1],
                "vis_backends": [{"type": "LocalVisBackend"}],
            },
            randomness={"seed": 3},
            experiment_name=runs[-1],
            **kwargs,
        )
        runner.train()
        return runner

    yield run
    for name in runs:
        DefaultScope._instance_dict.pop(name, None)


def test_training_is_bitwise_the_same(train):
    with_hook = train({"interval": 1, "plot_interval": 2}).model
    without = train(work="without").model
    for name, value in without.state_dict().items():
        assert torch.equal(value, with_hook.state_dict()[name]), name
    assert not with_hook.head._forward_pre_hooks


def test_metrics_are_logged_with_the_loss_but_not_printed(train, tmp_path, capsys):
    model, given = a_model(), []
    model.head.register_forward_pre_hook(
        lambda head, args: given.append((*(a.clone() for a in args), head.weight.clone()))
    )
    train({"interval": 1}, model=model)
    log = read_train_log(tmp_path / "work")
    for step, (embeddings, labels, centers) in enumerate(given):
        expected = pair_scores(embeddings, labels, centers).scalars()
        logged = {
            key.removeprefix("pairs/"): values[steps.index(step + 1)]
            for key, (steps, values) in log.train.items()
            if key.startswith("pairs/") and step + 1 in steps
        }
        assert logged == pytest.approx(expected), step
    lines = [json.loads(line) for line in log.files[0].read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert not log.evaluations
    printed = capsys.readouterr().out
    assert "loss" in printed and "gap" not in printed and "pairs/" not in printed
    assert printed.count("pair scores  ") == 1 and "work/pair_scores.png\n" in printed


@pytest.mark.parametrize(
    ("head", "remedy"), [({}, "pair_weight"), ({"metric_pairs": False}, "lower the learning rate")]
)
def test_collapsed_embeddings_are_warned_of_once(train, tmp_path, head, remedy):
    collapsed = a_model(**head)
    collapsed.backbone[4].bias.data.fill_(100.0)
    train({}, model=collapsed)
    [log] = (tmp_path / "work").rglob("*.log")
    [line] = [line for line in log.read_text().splitlines() if "have collapsed" in line]
    assert "of different people have a mean cosine of 1.00" in line and remedy in line
    train({}, work="sound")
    assert "have collapsed" not in next((tmp_path / "sound").rglob("*.log")).read_text()


def test_metrics_of_an_earlier_batch_are_not_repeated(train, tmp_path):
    train({"interval": 1}, labels=[0, 0, 1, 1, 2, 3, 4, 4, 4], epochs=1)
    train_log = read_train_log(tmp_path / "work").train
    assert train_log["pairs/positive_mean"][0] == [1, 3]
    assert train_log["pairs/metric_negative_max"][0] == [1, 2]
    assert train_log["pairs/gap"][0] == [1, 2, 3]
    assert all(np.isfinite(values).all() for _, values in train_log.values())


def test_measured_iterations(train, monkeypatch):
    measured = []
    monkeypatch.setattr(
        "negvision.face.pair_score_hook.pair_scores",
        lambda *args, **kw: measured.append(True) or pair_scores(*args, **kw),
    )
    runner = train({"interval": 50}, epochs=4)
    assert len(measured) == 5
    moments = runner.message_hub.get_info("pair_scores")
    assert [moment["iteration"] for moment in moments] == [1, 3, 6, 9, 12]
    assert [moment["epoch"] for moment in moments] == [1, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ({"whisker": 0.5}, (0.5, True)),
        ({"whisker": None}, (1.5, False)),
        ({"whisker": 0.5, "metric_pairs": False}, (1.5, False)),
        ({"sharded": True}, (1.5, True)),
    ],
)
def test_plot_says_whether_the_loss_has_the_whiskers(train, tmp_path, monkeypatch, head, expected):
    drawn = []

    def draw(moments, path, *whisker):
        drawn.append((len(moments), whisker))
        draw_it(moments, path, *whisker)

    draw_it = hooks.draw_pair_scores
    monkeypatch.setattr(hooks, "draw_pair_scores", draw)
    train({"moments": 3, "plot_interval": None}, model=a_model(**head))
    assert drawn == [(3, expected)]
    plot = cv2.imread(str(tmp_path / "work" / "pair_scores.png"))
    assert plot.shape[1] == 1300 and len(np.unique(plot.reshape(-1, 3), axis=0)) > 50
    assert not (tmp_path / "work" / ".pair_scores.png").exists()


@pytest.mark.parametrize("labels", [[0, 1, 2, 3, 4, 5], [0, 0, 0, 0, 0, 0], [0, 1, 2]])
def test_degenerate_batches_are_plotted(train, tmp_path, labels):
    # Batches of two and of one; batch normalization needs more than one value, which it has here.
    train({"interval": 1, "plot_interval": 1}, labels=labels, epochs=1)
    assert cv2.imread(str(tmp_path / "work" / "pair_scores.png")) is not None


def test_resumed_run_shows_the_beginning(train, tmp_path):
    train({"interval": 1}, epochs=2)
    checkpoint = tmp_path / "work" / "epoch_2.pth"
    saved = load_checkpoint_file(checkpoint)["message_hub"]["runtime_info"]["pair_scores"]
    assert [moment["iteration"] for moment in saved] == [1, 2, 3, 5, 6]
    resumed = train({"interval": 1}, epochs=4, load_from=str(checkpoint), resume=True)
    moments = [m["iteration"] for m in resumed.message_hub.get_info("pair_scores")]
    assert moments[:5] == [1, 2, 3, 5, 6] and moments[-1] == 12
    assert moments == sorted(set(moments))


@pytest.mark.parametrize(
    ("head", "message"), [(None, "has no head"), (nn.Identity(), "the head Identity without them")]
)
def test_model_without_centers(train, head, message):
    model = a_model()
    assert hooks._head_with_centers(nn.DataParallel(model)) is model.head
    model.head = head
    with pytest.raises(ConfigError, match=message):
        train({}, model=model)


@pytest.mark.parametrize("argument", [{"interval": 0}, {"plot_interval": 0}, {"moments": 1}])
def test_arguments_that_are_too_small(argument):
    with pytest.raises(ValueError, match="must be at least 1 and moments at least 2, got"):
        PairScoreHook(**argument)
