# ATSS on playing cards, from weights of ImageNet, on two CPU cores.
_base_ = [
    "../_base_/models/atss_lite0.py",
    "../_base_/datasets/cards_detection.py",
    "../_base_/schedules/schedule_finetune.py",
    "../_base_/iteration_runtime.py",
]

model = dict(bbox_head=dict(num_classes=4))
