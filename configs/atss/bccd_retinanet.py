# One side of a comparison on real images: RetinaNet, one anchor, max-IoU, from scratch. The other
# is bccd_retinanet_atss.py; only the choice of positives differs.
_base_ = [
    "../_base_/models/retinanet_r18_slim.py",
    "../_base_/datasets/bccd_detection.py",
    "../_base_/schedules/schedule_slim.py",
    "../_base_/iteration_runtime.py",
]

model = dict(bbox_head=dict(num_classes=3))
