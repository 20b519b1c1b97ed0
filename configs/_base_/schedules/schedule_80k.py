# 80,000 iterations of SGD with polynomial decay, as mmseg trains Cityscapes: batches of 8.
max_iters = 80000

train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=8000)

param_scheduler = [
    dict(type="PolyLR", eta_min=1e-4, power=0.9, by_epoch=False, begin=0, end=max_iters)
]

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="SGD", lr=0.01, momentum=0.9, weight_decay=0.0005),
)
auto_scale_lr = dict(enable=False, base_batch_size=8)
