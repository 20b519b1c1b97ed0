"""ReAct, ASH and DICE against loops, their statistics, and checkpoints."""

import pytest
import torch

from negvision.errors import CheckpointError, OODDataError
from negvision.ood import ASH, DICE, AbeTLogits, ReAct, fit_statistics
from negvision.ood.statistics import parts_to_fit


def test_react_clips_at_the_percentile():
    torch.manual_seed(0)
    head = AbeTLogits(6, 4, shaping={"type": "react", "percentile": 80}).eval()
    seen = torch.rand(50, 6)
    with fit_statistics(head):
        head(seen[:20])
        head(seen[20:])
    expected = seen.flatten().sort().values[int(300 * 0.8)]
    assert head.shaping.limit == expected
    features = 2 * torch.rand(5, 6)
    logits, temperature = head(features)
    # The temperature sees the original feature.
    assert torch.equal(temperature, head.temperature(features))
    clipped = head.classifier(torch.minimum(features, expected)) / temperature[:, None]
    assert torch.equal(logits, clipped)


@pytest.mark.parametrize("shape", [(3, 10), (2, 10, 2, 2)])
@pytest.mark.parametrize("form", ["s", "p", "b"])
def test_ash_keeps_the_largest_entries(form, shape):
    torch.manual_seed(0)
    features = torch.rand(shape)
    shaped, mask = ASH(percentile=70, form=form).eval()(features)
    assert mask is None
    rows = features.movedim(1, -1).reshape(-1, 10)
    for row, found in zip(rows, shaped.movedim(1, -1).reshape(-1, 10), strict=True):
        kept = row >= row.sort().values[7]
        expected = row * kept
        if form == "s":
            expected = expected * torch.exp(row.sum() / expected.sum())
        if form == "b":
            expected = kept * row.sum() / 3
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("channels", "percentile", "kept"),
    [(64, 65, 22), (16, 90, 2), (10, 65, 4), (100, 29, 71), (3, 90, 1), (4, 99, 1)],
)
def test_ash_rounds_the_number_of_zeros_to_nearest(channels, percentile, kept):
    features = torch.arange(1.0, channels + 1)[None]
    shaped, _ = ASH(percentile, form="p").eval()(features)
    assert torch.equal(shaped != 0, features > channels - kept)


def test_ash_of_zeros_is_finite():
    shaped, _ = ASH().eval()(torch.zeros(2, 8))
    assert torch.equal(shaped, torch.zeros(2, 8))


@pytest.mark.parametrize("conv", [False, True])
def test_dice_masks_the_lowest_contributions(conv):
    torch.manual_seed(0)
    head = AbeTLogits(6, 4, conv=conv, shaping={"type": "dice", "percentile": 50}).eval()
    seen = torch.rand(30, 6)
    features = seen.view(5, 6, 6, 1).transpose(1, 2) if conv else seen
    with fit_statistics(head):
        head(features)
    mean = features.movedim(1, -1).reshape(-1, 6).mean(0)
    contribution = head.classifier.weight.detach() * mean
    expected = contribution > contribution.flatten().sort().values[11]
    assert torch.equal(head.shaping.mask.bool(), expected)
    with torch.no_grad():
        product = head.classifier(features, head.shaping.mask)
    assert torch.equal(head(features).logits, product / head.temperature(features).unsqueeze(1))


def test_no_effect_in_training():
    features = torch.rand(4, 8)
    for shaping in (ReAct(), ASH(), DICE()):
        assert shaping.train()(features) == (features, None)


def test_statistics_are_in_the_state_dict():
    for kind in ("react", "dice"):
        head = AbeTLogits(6, 4, shaping={"type": kind}).eval()
        with fit_statistics(head):
            head(torch.rand(40, 6))
        other = AbeTLogits(6, 4, shaping={"type": kind}).eval()
        other.load_state_dict(head.state_dict())
        features = torch.rand(3, 6)
        assert torch.equal(head(features).logits, other(features).logits)


def test_evaluation_before_the_fit_is_an_error():
    for kind in ("react", "dice"):
        head = AbeTLogits(6, 4, shaping={"type": kind}).eval()
        with pytest.raises(CheckpointError, match=r"no statistics .* run negvision calibrate-ood"):
            head(torch.rand(2, 6))


def test_a_fit_without_features_is_an_error():
    head = AbeTLogits(6, 4, shaping={"type": "react"}).eval()
    with pytest.raises(OODDataError, match="no feature reached ReAct"), fit_statistics(head):
        pass
    assert not head.shaping.fitting and not head.shaping.fitted


def test_ash_needs_no_fit():
    assert parts_to_fit(AbeTLogits(6, 4, shaping={"type": "ash"})) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"type": "rectify"}, "shaping.type must be one of react, ash, scale, dice, got 'rectify'"),
        ({"type": "react", "percentile": 100}, "percentile must be between 0 and 100, got 100"),
        ({"type": "ash", "form": "x"}, 'form must be "s", "p" or "b", got \'x\''),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        AbeTLogits(6, 4, shaping=options)
