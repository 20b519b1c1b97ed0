# ATSS on blood cells, from weights of ImageNet: otherwise as bccd_atss.py.
_base_ = [
    "../_base_/models/atss_lite0.py",
    "../_base_/datasets/bccd_detection.py",
    "../_base_/schedules/schedule_finetune.py",
    "../_base_/iteration_runtime.py",
]

model = dict(bbox_head=dict(num_classes=3))
