# ATSS R50, 12 epochs on COCO: AP 39.3 on minival in the paper (Zhang et al., CVPR 2020, table 3).
_base_ = [
    "./_base_/models/atss_r50_fpn.py",
    "./_base_/datasets/coco_detection.py",
    "./_base_/schedules/schedule_1x.py",
    "./_base_/default_runtime.py",
]
