from types import SimpleNamespace

import torch
from mmengine.registry import HOOKS


def test_channels_last_follows_the_weights_and_keeps_the_values():
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.BatchNorm2d(8), torch.nn.Conv2d(8, 4, 1)
    )
    images = torch.randn(2, 3, 16, 16)
    want, state = model(images), {k: v.clone() for k, v in model.state_dict().items()}
    assert want.is_contiguous()
    HOOKS.build({"type": "negvision.ChannelsLastHook"}).before_run(SimpleNamespace(model=model))
    got = model(images)
    assert got.is_contiguous(memory_format=torch.channels_last) and not got.is_contiguous()
    torch.testing.assert_close(got, want)
    weight = "0.weight"
    assert torch.equal(model.state_dict()[weight], state[weight])
