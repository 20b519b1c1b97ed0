# Plain Faster R-CNN on playing cards, from scratch, with queen and ten held out: the other side of
# cards_abet.py. Only the type of the box head differs.
_base_ = [
    "../_base_/models/faster_rcnn_r18_slim.py",
    "../_base_/datasets/cards_ood_detection.py",
    "../_base_/schedules/schedule_slim.py",
    "../_base_/iteration_runtime.py",
]

model = dict(roi_head=dict(bbox_head=dict(num_classes=4)))

# 48 times through the photos.
max_iters = 1000
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type="CosineAnnealingLR", eta_min=1e-5, by_epoch=False, begin=50, end=max_iters),
]

randomness = dict(seed=0)
