# schedule_slim for a pretrained backbone, whose weights change more slowly.
_base_ = "./schedule_slim.py"

optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.2))))
