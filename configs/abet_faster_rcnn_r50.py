# AbeT on Faster R-CNN, VOC against COCO. In the paper (LeVine et al., arXiv 2401.12129): AP 41.2,
# FPR@95 88.8, AUROC 65.3, without a threshold on class scores (score_thr=0.0 of the evaluator).
_base_ = [
    "./_base_/models/faster_rcnn_r50_fpn.py",
    "./_base_/datasets/voc_coco_ood.py",
    "./_base_/schedules/schedule_voc_18k.py",
    "./_base_/iteration_runtime.py",
]

# 0.5 is where the paper's temperature begins; the default suits shorter trainings.
model = dict(
    roi_head=dict(
        bbox_head=dict(type="negvision.AbeTBBoxHead", num_classes=20, initial_temperature=0.5)
    )
)
