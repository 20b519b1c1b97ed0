# Plain Faster R-CNN on the recipe of ../abet_faster_rcnn_r50.py: the baselines MSP, MaxLogit,
# entropy and energy. Only the type of the box head differs.
_base_ = [
    "../_base_/models/faster_rcnn_r50_fpn.py",
    "../_base_/datasets/voc_coco_ood.py",
    "../_base_/schedules/schedule_voc_18k.py",
    "../_base_/iteration_runtime.py",
]

model = dict(roi_head=dict(bbox_head=dict(num_classes=20)))
