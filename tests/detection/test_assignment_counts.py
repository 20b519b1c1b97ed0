"""Counts of positives in training: what the assigner returned, at the cost of nothing else."""

import json
from pathlib import Path

import pytest
import torch

from negvision.detection.assignment_counts import AssignmentCountHook, similarity_scales
from negvision.engine.runner import Runner

MAX_IOU = {"type": "MaxIoUAssigner", "pos_iou_thr": 0.5, "neg_iou_thr": 0.4}
HOOK = {"type": "negvision.AssignmentCountHook"}
IGNORING = {"type": "negvision.IgnoringAssigner", "assigner": {"type": "negvision.ATSSAssigner"}}


def trained(cfg, options):
    """Scalars of a training of two iterations, and what the assigner returned in it."""
    cfg.default_hooks.assignments = options
    runner, returned = Runner.from_cfg(cfg), []
    assigner = runner.model.bbox_head.assigner
    name = "assign_batch" if hasattr(assigner, "assign_batch") else "assign"
    real = getattr(assigner, name)

    def watched(priors, *args, **kwargs):
        result = real(priors, *args, **kwargs)
        sizes = args[0] if isinstance(args[0], list) else None
        gts = args[sizes is not None]
        if name == "assign_batch":
            returned.extend((own, gt, sizes) for own, gt in zip(result[0], gts, strict=True))
        else:
            returned.append((result.gt_inds, gts, sizes))
        return result

    setattr(assigner, name, watched)
    runner.train()
    assert getattr(assigner, name) is watched
    [log] = Path(cfg.work_dir).rglob("scalars.json")
    return [json.loads(line) for line in log.read_text().splitlines()], returned, runner


@pytest.mark.parametrize(
    ("head", "assigner"),
    [
        ("negvision.ATSSHead", None),
        ("ATSSHead", {"type": "ATSSAssigner", "topk": 9}),
        ("negvision.ATSSHead", IGNORING),
        ("RetinaHead", MAX_IOU),
    ],
)
def test_curves_and_table_equal_what_the_assigner_returned(tiny_detector, capsys, head, assigner):
    lines, returned, _ = trained(tiny_detector(head, assigner), {**HOOK, "every": 1})
    boxes = without = positives = 0
    levels = torch.zeros(3)
    for gt_inds, gt, sizes in returned:
        counts = [(gt_inds == i + 1).sum().item() for i in range(len(gt))]
        boxes, without = boxes + len(counts), without + counts.count(0)
        positives += sum(counts)
        if sizes is not None:
            levels += torch.stack([(part > 0).sum() for part in gt_inds.split(sizes)])
    last = [line for line in lines if "loss" in line][-1]
    assert boxes > 8 and last["boxes/without"] == pytest.approx(without / boxes)
    assert last["boxes/positives"] == pytest.approx(positives / boxes)
    if levels.any():
        shares = [last[f"boxes/level_{level}"] for level in range(3)]
        assert shares == pytest.approx((levels / levels.sum()).tolist())
    printed = capsys.readouterr().out
    assert "positives in training:\nboxes " in printed
    assert "boxes/" not in printed  # curves, not in the line of each interval


def test_hook_changes_no_weight_counts_a_part_and_can_be_taken_out(tiny_detector, tmp_path, capsys):
    states = []
    for place, options in enumerate(({**HOOK, "every": 2}, None)):
        cfg = tiny_detector()
        cfg.work_dir = str(tmp_path / str(place))
        cfg.experiment_name += str(place)
        lines, returned, runner = trained(cfg, options)
        states.append(runner.model.state_dict())
        counted = [line for line in lines if "boxes/without" in line]
        assert len(counted) == (2 if options else 0) and len(returned) == 8
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    printed = capsys.readouterr().out
    assert printed.count("positives in training, one iteration in 2 counted:\nboxes ") == 1
    with pytest.raises(ValueError, match="every must be at least 1, got 0"):
        AssignmentCountHook(every=0)


def test_model_without_an_assigner_trains_as_before(tiny_detector, capsys):
    Runner.from_cfg(tiny_detector("FCOSHead")).train()
    assert "positives in training" not in capsys.readouterr().out


def test_scales_of_the_data():
    boxes = torch.tensor([[0.0, 0, 4, 4], [0.0, 0, 16, 4]])
    priors = torch.tensor([[4.0, 0, 12, 16], [-2.0, -6, 6, 10]])
    pairs = [(boxes[:1], priors), (boxes[1:], priors[:1]), (boxes[:0], priors)]
    # Pairs: 6/12 and 6/20, 0 and 0; 0/24 and 6/20.
    mean_size, m, n = similarity_scales(pairs)
    assert mean_size == 6 and m == pytest.approx((0.25 + 0) / 2)
    assert n == pytest.approx((0.15 + 0.3) / 2)
    assert similarity_scales([(boxes[:0], priors)]) is None
