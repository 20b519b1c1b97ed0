# Faster R-CNN with AbeT on the embedded digits, 7 and 9 held out, from scratch on two CPU cores:
# the first of the three that `make quickstart-ood` runs.
_base_ = [
    "../_base_/models/faster_rcnn_r18_slim.py",
    "../_base_/datasets/digits_ood_detection.py",
    "../_base_/schedules/schedule_slim.py",
    "../_base_/iteration_runtime.py",
]

model = dict(roi_head=dict(bbox_head=dict(type="negvision.AbeTBBoxHead", num_classes=8)))

custom_hooks = [
    dict(type="negvision.ChannelsLastHook"),
    dict(type="negvision.PredictionSheetHook"),
]

randomness = dict(seed=0)
