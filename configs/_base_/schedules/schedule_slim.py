# Minutes on two CPU cores, from scratch: AdamW, a short warm-up and one cosine to zero.
# Counted in iterations, so that a small data set does not spend its time between epochs.
max_iters = 600
warmup = 50

train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=max_iters)

param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=warmup),
    dict(type="CosineAnnealingLR", eta_min=1e-5, by_epoch=False, begin=warmup, end=max_iters),
]

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=0.002, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
    clip_grad=dict(max_norm=10.0),
)
