# ATSS on the embedded digits, from scratch on two CPU cores: `make quickstart` runs this.
_base_ = [
    "../_base_/models/atss_r18_slim.py",
    "../_base_/datasets/digits_detection.py",
    "../_base_/schedules/schedule_slim.py",
    "../_base_/iteration_runtime.py",
]

# Digits are localized long before they are classified, hence the weight on the classes.
model = dict(bbox_head=dict(num_classes=10, loss_cls=dict(loss_weight=2.0)))

max_iters = 2400
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type="CosineAnnealingLR", eta_min=1e-5, by_epoch=False, begin=100, end=max_iters),
]

# Two images in the work dir show which anchors train, and what is detected in the end.
custom_hooks = [
    dict(type="negvision.ChannelsLastHook"),
    dict(type="negvision.AssignmentSheetHook"),
    dict(type="negvision.PredictionSheetHook"),
]

randomness = dict(seed=0)
