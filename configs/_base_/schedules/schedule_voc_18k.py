# 18,000 batches of 4 images: the recipe of AbeT (and, but for its batch, of VOS) on Pascal VOC.
train_cfg = dict(type="IterBasedTrainLoop", max_iters=18000, val_interval=18000)

param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=100),
    dict(type="MultiStepLR", by_epoch=False, begin=0, milestones=[12000, 16000], gamma=0.1),
]

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="SGD", lr=0.02, momentum=0.9, weight_decay=0.0001),
)

# `--auto-scale-lr` scales the learning rate to another number of images per batch.
auto_scale_lr = dict(enable=False, base_batch_size=4)
