# The recipe of the UNPG paper: 20 epochs for a total batch of 512, 3 of them warm-up.
max_epochs = 20
warmup_epochs = 3

train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=max_epochs, val_interval=1)

epochs = dict(by_epoch=True, convert_to_iter_based=True)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, end=warmup_epochs, **epochs),
    dict(type="CosineAnnealingLR", eta_min=0, begin=warmup_epochs, end=max_epochs, **epochs),
]

optim_wrapper = dict(
    type="AmpOptimWrapper",
    optimizer=dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=5e-4),
)

# 8 GPUs x 64 images. `--auto-scale-lr` scales the learning rate to any other number.
auto_scale_lr = dict(enable=False, base_batch_size=512)
