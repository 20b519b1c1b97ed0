# 12 epochs ("1x" on COCO) for a total batch of 16 images.
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=12, val_interval=1)

param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type="MultiStepLR", begin=0, end=12, by_epoch=True, milestones=[8, 11], gamma=0.1),
]

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="SGD", lr=0.01, momentum=0.9, weight_decay=0.0001),
)

# 8 GPUs x 2 images. `--auto-scale-lr` scales the learning rate to any other number.
auto_scale_lr = dict(enable=False, base_batch_size=16)
