# ATSS with AbeT on the embedded digits, 7 and 9 held out, from scratch on two CPU cores: the first
# of the three that `make quickstart-ood` runs.
_base_ = [
    "../_base_/models/atss_r18_slim.py",
    "../_base_/datasets/digits_ood_detection.py",
    "../_base_/schedules/schedule_slim.py",
    "../_base_/iteration_runtime.py",
]

# Digits are localized long before they are classified, hence the weight on the classes.
model = dict(
    bbox_head=dict(type="negvision.AbeTATSSHead", num_classes=8, loss_cls=dict(loss_weight=2.0))
)

max_iters = 1800
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type="CosineAnnealingLR", eta_min=1e-5, by_epoch=False, begin=100, end=max_iters),
]

custom_hooks = [
    dict(type="negvision.ChannelsLastHook"),
    dict(type="negvision.PredictionSheetHook"),
]

randomness = dict(seed=0)
