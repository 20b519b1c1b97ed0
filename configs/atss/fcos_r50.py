# FCOS, 12 epochs: AP 37.8 in table 3 of Zhang et al., CVPR 2020.
_base_ = [
    "../_base_/models/fcos_r50_fpn.py",
    "../_base_/datasets/coco_detection.py",
    "../_base_/schedules/schedule_1x.py",
    "../_base_/default_runtime.py",
]

# As FCOS is trained: biases at twice the rate and without decay.
optim_wrapper = dict(paramwise_cfg=dict(bias_lr_mult=2.0, bias_decay_mult=0.0))
