# The recipe of the AbeT paper for CIFAR: 200 epochs, batches of 64.
max_epochs = 200

train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=max_epochs, val_interval=1)

param_scheduler = [
    dict(type="MultiStepLR", by_epoch=True, milestones=[100, 150, 180], gamma=0.1),
]

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=1e-4),
)
