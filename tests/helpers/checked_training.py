"""The check before a training, on a data set and a stand-in for the loop."""

from types import SimpleNamespace

import torch
from mmengine.dataset import DefaultSampler
from torch import nn
from torch.utils.data import DataLoader

from negvision.engine.data_order import seed_batches
from negvision.engine.training_check import check_training


def check(dataset, model=None, batch=2, sampler=DefaultSampler, drop_last=False):
    batches = DataLoader(
        dataset, batch, sampler=sampler(dataset, seed=0), drop_last=drop_last, collate_fn=list
    )
    seed_batches(batches, 0)
    model = model or nn.Linear(2, 2)
    wrapper = SimpleNamespace(optimizer=torch.optim.SGD(model.parameters(), 0.1))
    runner = SimpleNamespace(model=model, optim_wrapper=wrapper, param_schedulers=[])
    values = {"max_epochs": 1, "max_iters": 5, "epoch": 0, "iter": 0}
    check_training(SimpleNamespace(dataloader=batches, runner=runner, **values))
