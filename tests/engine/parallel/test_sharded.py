"""One process; what several do is in tests/face/test_distributed.py."""

import math

import pytest
import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import nn

from negvision.engine.parallel import sharded
from negvision.errors import UserError


class Sharded(nn.Module):
    """Rows 2 and 3 of five."""

    def __init__(self, rows=range(2, 4), total=5):
        super().__init__()
        self.rows, self.total = rows, total
        self.weight = nn.Parameter(torch.randn(len(rows), 3))
        self.bias = nn.Parameter(torch.randn(3))

    def sharded_rows(self):
        return {"weight": (self.rows, self.total)}


def model_with_gradients(**kwargs):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), Sharded(**kwargs))
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    return model


def test_names_of_shards():
    model = model_with_gradients()
    (shard,) = sharded.find_row_shards(model)
    assert shard.path == "1.weight" and shard.parameter is model[1].weight
    assert (shard.rows, shard.total) == (range(2, 4), 5)
    assert sharded.find_row_shards(nn.Linear(2, 2)) == []
    assert sharded.find_row_shards(model[1])[0].path == "weight"


def test_ddp_ignores_row_shards():
    model = model_with_gradients()
    sharded.keep_shards_from_ddp(model)
    assert list(model._ddp_params_and_buffers_to_ignore) == ["1.weight"]
    plain = nn.Linear(2, 2)
    sharded.keep_shards_from_ddp(plain)
    assert not hasattr(plain, "_ddp_params_and_buffers_to_ignore")


def test_state_dict_without_row_shards():
    model = model_with_gradients()
    with sharded.without_row_shards(model):
        assert list(model.state_dict()) == ["0.weight", "0.bias", "1.bias"]
    assert "1.weight" in model.state_dict()


@pytest.mark.parametrize("order", [2.0, 1.0, 3.0, math.inf])
def test_clipping_in_one_process_equals_torch(order):
    model, other = model_with_gradients(), model_with_gradients()
    before = nn.utils.clip_grad_norm_(other.parameters(), 0.5, order)
    norm = sharded.clip_grad_norm({model[1].weight}, model.parameters(), 0.5, order)
    torch.testing.assert_close(norm, before)
    for got, wanted in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(got.grad, wanted.grad)


def test_clipping_without_rows_or_without_others():
    model = model_with_gradients(rows=range(5, 5))
    others = [p.grad.clone() for p in model.parameters() if p.numel()]
    norm = sharded.clip_grad_norm({model[1].weight}, model.parameters(), 1.0)
    torch.testing.assert_close(norm, nn.utils.get_total_norm(others))
    alone = model_with_gradients()[1].weight
    torch.testing.assert_close(alone.grad.norm(), sharded.clip_grad_norm({alone}, [alone], 9.0))


def test_clipping_a_norm_that_is_not_finite():
    model = model_with_gradients()
    model[1].weight.grad[0, 0] = math.nan
    with pytest.raises(RuntimeError, match=r"norm of order 2\.0 is nan"):
        sharded.clip_grad_norm({model[1].weight}, model.parameters(), 1.0, error_if_nonfinite=True)


def test_wrappers_clip_over_ranks():
    model, plain = model_with_gradients(), nn.Linear(2, 2)
    by_norm, by_value = {"max_norm": 0.1}, {"type": "value", "clip_value": 0.1}

    def wrapper(of, **kwargs):
        return OptimWrapper(torch.optim.SGD(of.parameters(), 0.1), **kwargs)

    wrappers = OptimWrapperDict(
        first=wrapper(model, clip_grad=dict(by_norm)), second=wrapper(plain)
    )
    sharded.clip_over_ranks(model, wrappers)
    wrappers["first"].step()
    norm = nn.utils.get_total_norm([parameter.grad for parameter in model.parameters()])
    torch.testing.assert_close(norm, torch.tensor(0.1), rtol=1e-4, atol=0)
    assert wrappers["first"].clip_func.func is sharded.clip_grad_norm
    for unchanged in (
        (model, wrapper(model, clip_grad=dict(by_value)), nn.utils.clip_grad_value_),
        (plain, wrapper(plain, clip_grad=dict(by_norm)), nn.utils.clip_grad_norm_),
    ):
        sharded.clip_over_ranks(*unchanged[:2])
        assert unchanged[1].clip_func is unchanged[2]
    assert sharded.optim_wrappers_of(wrappers) == list(wrappers.values())
    assert sharded.optim_wrappers_of({"type": "OptimWrapper"}) == []
    assert sharded.optim_wrappers_of(None) == []


def test_optimizer_takes_its_rows():
    full = model_with_gradients(rows=range(5))
    optimizer = torch.optim.AdamW(full.parameters())
    optimizer.step()
    with sharded.full_state([full], [optimizer]):
        state = optimizer.state_dict()
    model = model_with_gradients()
    optimizer = torch.optim.AdamW(model.parameters())
    for _ in range(2):  # a second time, from the same state
        with sharded.own_state(model, [optimizer]):
            optimizer.load_state_dict(state)
    own = optimizer.state[model[1].weight]
    for name in ("exp_avg", "exp_avg_sq"):
        assert torch.equal(own[name], state["state"][2][name][2:4])
        assert torch.equal(optimizer.state[model[1].bias][name], state["state"][3][name])
    assert own["step"] == 1 and len(state["state"][2]["exp_avg"]) == 5


def test_groups_of_parameters_keep_their_order():
    model = model_with_gradients(rows=range(5))
    groups = [{"params": [model[1].weight], "lr": 0.5}, {"params": model[0].parameters()}]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    optimizer.step()
    with sharded.full_state([model], [optimizer]):
        state = optimizer.state_dict()
    assert torch.equal(state["state"][0]["momentum_buffer"], model[1].weight.grad)
    assert torch.equal(state["state"][1]["momentum_buffer"], model[0].weight.grad)
    with sharded.own_state(model, [optimizer]):
        pass
    # No hook is left.
    assert not model[1]._state_dict_hooks and not optimizer._optimizer_state_dict_post_hooks
    assert not optimizer._optimizer_load_state_dict_pre_hooks


def test_state_that_cannot_be_gathered():
    model = model_with_gradients(rows=range(5))
    optimizer = torch.optim.Adafactor(model.parameters())
    optimizer.step()
    message = r"Adafactor keeps 'row_var' of shape \(5, 1\) for 1.weight.*SGD or AdamW"
    with pytest.raises(UserError, match=message), sharded.full_state([model], [optimizer]):
        pass
