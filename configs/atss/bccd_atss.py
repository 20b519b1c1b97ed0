# ATSS with its centerness branch, for blood cells: otherwise as bccd_retinanet_atss.py.
_base_ = [
    "../_base_/models/atss_r18_slim.py",
    "../_base_/datasets/bccd_detection.py",
    "../_base_/schedules/schedule_slim.py",
    "../_base_/iteration_runtime.py",
]

model = dict(bbox_head=dict(num_classes=3))
