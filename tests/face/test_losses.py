import math

import pytest
import torch
from oracles.unpg import MARGINS, written_out
from pytorch_metric_learning.losses import ArcFaceLoss, CosFaceLoss

from negvision.errors import CheckpointError, UserError
from negvision.face.losses import BatchError, UNPGLoss
from negvision.face.margins import ArcFaceMargin
from negvision.registry import MODELS


def batch(count, classes, size, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(count, size, generator=generator, dtype=dtype) * 5
    return embeddings.requires_grad_(), torch.randint(classes, (count,), generator=generator)


def build(*args, margin="ArcFaceMargin", dtype=torch.float64, **kwargs):
    """A loss whose margin does not change from call to call, as AdaFace's does in training."""
    torch.manual_seed(1)
    return UNPGLoss(*args, margin={"type": margin}, **kwargs).to(dtype).eval()


def gradients(value, *inputs):
    return torch.autograd.grad(value, inputs)


def assert_equal_to_definition(loss, embeddings, labels):
    value, expected = loss(embeddings, labels), written_out(loss, embeddings, labels)
    assert abs(value - expected) < 1e-10
    inputs = (embeddings, loss.weight)
    for got, wanted in zip(gradients(value, *inputs), gradients(expected, *inputs), strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-10)
    return wanted


@pytest.mark.parametrize("whisker", [0.0, 1.0, 1.5, None])
@pytest.mark.parametrize("margin", MARGINS)
def test_equals_the_definition(margin, whisker):
    embeddings, labels = batch(70, 40, 16)
    loss = build(40, 16, margin=margin, whisker=whisker)
    assert assert_equal_to_definition(loss, embeddings, labels).abs().max() > 1e-3


@pytest.mark.parametrize("pair_weight", [1e-3, 8.0])
def test_weighted_pairs_equal_the_definition(pair_weight):
    embeddings, labels = batch(70, 40, 16)
    loss = build(40, 16, pair_weight=pair_weight)
    assert_equal_to_definition(loss, embeddings, labels)
    for refused in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="pair_weight must be above 0"):
            build(40, 16, pair_weight=refused)


def test_class_pairs_alone_equal_pytorch_metric_learning():
    embeddings, labels = batch(300, 50, 24)
    theirs = {
        "ArcFaceMargin": ArcFaceLoss(50, 24, margin=math.degrees(0.5), scale=64),
        "CosFaceMargin": CosFaceLoss(50, 24, margin=0.35, scale=64),
    }
    for name, other in theirs.items():
        loss, other = build(50, 24, margin=name, metric_pairs=False), other.double()
        other.W.data.copy_(loss.weight.T)
        value, expected = loss(embeddings, labels), other(embeddings, labels)
        assert abs(value - expected) < 1e-6
        of_embeddings, of_weight = gradients(value, embeddings, loss.weight)
        wanted, wanted_of_weight = gradients(expected, embeddings, other.W)
        torch.testing.assert_close(of_embeddings, wanted, rtol=0, atol=1e-6)
        torch.testing.assert_close(of_weight, wanted_of_weight.T, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("margin", MARGINS)
def test_cosines_of_one_and_minus_one(margin, dtype):
    loss = build(4, 3, margin=margin, dtype=dtype)
    axes = torch.eye(3, dtype=dtype)
    loss.weight.data.copy_(torch.cat([axes, -axes[:1]]))
    embeddings = (torch.cat([axes, -axes]) * 20).requires_grad_()
    value = loss(embeddings, torch.tensor([0, 1, 2, 0, 1, 3]))
    assert value.isfinite()
    for gradient in gradients(value, embeddings, loss.weight):
        assert gradient.isfinite().all()


@pytest.mark.parametrize("margin", MARGINS)
@pytest.mark.parametrize(
    ("classes", "labels"), [(1, [0]), (1, [0, 0, 0]), (5, [3]), (5, [2, 2, 2]), (5, [0, 4])]
)
def test_few_classes_and_samples(margin, classes, labels):
    embeddings, _ = batch(len(labels), classes, 8)
    loss = build(classes, 8, margin=margin)
    assert_equal_to_definition(loss, embeddings, torch.tensor(labels))
    if classes == 1 and not hasattr(loss.margin, "regularizer"):  # no negative at all
        assert loss(embeddings, torch.tensor(labels)) == 0


def test_embedding_and_center_of_length_zero():
    embeddings, labels = batch(4, 3, 8)
    embeddings.data[0], loss = 0, build(3, 8)
    loss.weight.data[labels[1]] = 0
    value = loss(embeddings, labels)
    assert value.isfinite()
    for gradient in gradients(value, embeddings, loss.weight):
        assert gradient.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_computes_in_float32(dtype):
    embeddings, labels = batch(40, 20, 16, torch.float32)
    embeddings = embeddings.detach().to(dtype).requires_grad_()
    loss = build(20, 16, dtype=torch.float32)
    with torch.autocast("cpu", dtype=dtype if dtype == torch.bfloat16 else torch.bfloat16):
        value = loss(embeddings, labels)
    assert value.dtype == torch.float32
    assert value == loss(embeddings.detach().float(), labels)
    (gradient,) = gradients(value, embeddings)
    assert gradient.dtype == dtype and gradient.isfinite().all()


@pytest.mark.parametrize("wrong", [-1, 5])
def test_label_out_of_range(wrong):
    embeddings, labels = batch(6, 5, 8)
    labels[2] = wrong
    message = rf"label {wrong} of sample 2 is not one of the 5 classes \(0 to 4\).*num_classes"
    with pytest.raises(BatchError, match=message) as caught:
        build(5, 8)(embeddings, labels)
    assert isinstance(caught.value, UserError)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_embeddings_that_are_not_finite(wrong):
    embeddings, labels = batch(6, 5, 8)
    embeddings.data[3, 1] = embeddings.data[5, 0] = wrong
    with pytest.raises(BatchError, match=r"2 of 6 embeddings are not finite.* sample 3.*diverged"):
        build(5, 8)(embeddings, labels)


@pytest.mark.parametrize(
    ("embeddings", "labels", "message"),
    [
        ((6, 7), (6,), r"shape \(N, 8\), got \(6, 7\)"),
        ((8,), (6,), r"shape \(N, 8\), got \(8,\)"),
        ((6, 8), (5,), r"shape \(6,\), got \(5,\)"),
        ((6, 8), (6, 1), r"shape \(6,\), got \(6, 1\)"),
        ((0, 8), (0,), "at least one sample"),
    ],
)
def test_wrong_shapes_and_no_sample(embeddings, labels, message):
    with pytest.raises(ValueError, match=message):
        build(5, 8)(torch.ones(embeddings).double(), torch.zeros(labels).long())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "at least 1, got 0 and 8"),
        ({"embedding_size": 0}, "at least 1, got 5 and 0"),
        ({"scale": 0.0}, "scale must be above 0, got 0.0"),
        ({"scale": math.nan}, "scale must be above 0, got nan"),
        ({"whisker": -0.5}, "whisker must be at least 0 or None, got -0.5"),
        ({"sample_rate": 0.5}, "below 1 needs sharded=True; got 0.5"),
        ({"sample_rate": 0.0, "sharded": True}, r"lie in \(0, 1\].*got 0.0"),
        ({"sample_rate": 1.5, "sharded": True}, r"lie in \(0, 1\].*got 1.5"),
        ({"margin": {"type": "ArcfaceMargin"}}, "'ArcfaceMargin' is not known; nearest: 'ArcFace"),
        ({"margin": {"type": "UNPGLoss"}}, "'UNPGLoss' is not known"),
        ({"margin": {"m": 0.5}}, "None is not known"),
        ({"products": "bf16"}, 'products must be "bfloat16", "float16" or None'),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        UNPGLoss(**{"num_classes": 5, "embedding_size": 8, **arguments})


def test_margin_by_name_or_as_a_module():
    by_name = UNPGLoss(5, 8, {"type": "negvision.ArcFaceMargin", "m": 0.3}).margin
    assert isinstance(by_name, ArcFaceMargin) and by_name.m == 0.3
    assert UNPGLoss(5, 8, by_name).margin is by_name
    assert UNPGLoss(5, 8).margin.m == 0.5
    built = MODELS.build({"type": "negvision.UNPGLoss", "num_classes": 5, "embedding_size": 8})
    assert built.weight.shape == (5, 8)


def sampling(classes, rate):
    loss = UNPGLoss(classes, 8, sharded=True, sample_rate=rate)
    loss.weight.data.normal_()
    return loss


def test_sample_of_centers():
    loss, (_, labels) = sampling(100, 0.3), batch(12, 100, 8)
    centers, places = loss.sampled(loss.weight, labels)
    assert len(places) == 30 and set(labels.tolist()) <= set(places.tolist())
    assert (places.diff() > 0).all()
    assert torch.equal(centers, loss.weight[places])
    assert not torch.equal(loss.sampled(loss.weight, labels)[1], places)  # redrawn each time
    loss, labels = sampling(10, 0.2), torch.tensor([0, 3, 5, 7, 7])  # more classes than that share
    assert loss.sampled(loss.weight, labels)[1].tolist() == [0, 3, 5, 7]


def test_centers_outside_of_the_sample_have_no_gradient():
    # In float32 a center whose probability is 1 to all digits would have none either.
    loss, (embeddings, labels) = sampling(100, 0.3).double(), batch(12, 100, 8)
    loss(embeddings, labels).backward()
    moved = loss.weight.grad.abs().sum(1) > 0
    assert moved.sum() == 30 and moved[labels].all()


def test_loss_of_a_sample_is_that_of_its_classes():
    loss, (embeddings, labels) = sampling(50, 0.4).double(), batch(12, 50, 8)
    torch.manual_seed(3)
    places = loss.sampled(loss.weight, labels)[1]
    torch.manual_seed(3)
    value = loss(embeddings, labels)
    few = UNPGLoss(len(places), 8).double()
    few.weight.data.copy_(loss.weight.data[places])
    few_labels = torch.searchsorted(places, labels)
    assert abs(value - written_out(few, embeddings, few_labels)) < 1e-10
    loss.eval()  # all centers count
    assert abs(loss(embeddings, labels) - written_out(loss, embeddings, labels)) < 1e-10


def test_state_of_one_process_is_complete():
    source, target = UNPGLoss(5, 8, sharded=True), UNPGLoss(5, 8)
    target.weight.data.zero_()
    target.load_state_dict(source.state_dict())
    assert torch.equal(target.weight, source.weight) and list(source.state_dict()) == ["weight"]


@pytest.mark.parametrize("sharded", [False, True])
def test_state_of_another_number_of_classes(sharded):
    with pytest.raises(RuntimeError, match="6 classes in the checkpoint and of 5 here"):
        UNPGLoss(5, 8, sharded=sharded).load_state_dict(UNPGLoss(6, 8).state_dict())


@pytest.mark.parametrize("sharded", [False, True])
def test_state_of_one_rank_is_refused(sharded):
    state = {"weight[0:5]": torch.zeros(5, 8)}
    with pytest.raises(CheckpointError, match=r"'weight\[0:5\]', the centers of one rank"):
        UNPGLoss(15, 8, sharded=sharded).load_state_dict(state)
    with pytest.raises(CheckpointError, match="the centers of one rank"):
        UNPGLoss(5, 8, sharded=sharded).load_state_dict({"weight[5:10]": torch.zeros(5, 8)})


@pytest.mark.parametrize("sharded", [False, True])
def test_rounded_products(sharded):
    x, labels = batch(12, 9, 16, torch.float32)
    exact = build(9, 16, dtype=torch.float32, sharded=sharded)
    rounded = build(9, 16, dtype=torch.float32, sharded=sharded, products="bfloat16")
    want, got = exact(x, labels), rounded(x, labels)
    assert got.dtype == torch.float32
    # A log-sum over classes is off by 64 times 2^-7 at most, and a loss as much.
    assert 0 < (got - want).abs() < 64 * 2**-7
    for mine, of_exact in zip(
        gradients(got, x, rounded.weight), gradients(want, x, exact.weight), strict=True
    ):
        assert (mine - of_exact).norm() < 0.05 * of_exact.norm()
