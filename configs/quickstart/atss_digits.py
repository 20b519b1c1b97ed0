# ATSS on the embedded digits, from scratch on two CPU cores: `make quickstart` runs this.
_base_ = [
    "../_base_/models/atss_r18_slim.py",
    "../_base_/datasets/digits_detection.py",
    "../_base_/schedules/schedule_slim.py",
    "../_base_/iteration_runtime.py",
]

model = dict(bbox_head=dict(num_classes=10))

# Two pictures to judge by, in the work dir: which anchors train, and what is found in the end.
custom_hooks = [
    dict(type="negvision.AssignmentSheetHook"),
    dict(type="negvision.PredictionSheetHook"),
]
