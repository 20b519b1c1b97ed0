# A few minutes on two CPU cores.
max_epochs = 8
warmup_epochs = 2

train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=max_epochs, val_interval=max_epochs)

epochs = dict(by_epoch=True, convert_to_iter_based=True)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, end=warmup_epochs, **epochs),
    dict(type="CosineAnnealingLR", eta_min=0, begin=warmup_epochs, end=max_epochs, **epochs),
]

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=5e-4),
)
