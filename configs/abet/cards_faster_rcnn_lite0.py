# Faster R-CNN on playing cards, from weights of ImageNet, with queen and ten held out.
_base_ = [
    "../_base_/models/faster_rcnn_lite0.py",
    "../_base_/datasets/cards_ood_detection.py",
    "../_base_/schedules/schedule_finetune.py",
    "../_base_/iteration_runtime.py",
]

model = dict(roi_head=dict(bbox_head=dict(num_classes=4)))
