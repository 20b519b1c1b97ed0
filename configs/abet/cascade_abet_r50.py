# AbeT on Cascade R-CNN, VOC against COCO: a classifier with a temperature in each of three stages,
# whose mean is scored.
_base_ = "../abet_faster_rcnn_r50.py"

sharpness = (1, 2, 3)

model = dict(
    type="CascadeRCNN",
    roi_head=dict(
        type="CascadeRoIHead",
        num_stages=3,
        stage_loss_weights=[1, 0.5, 0.25],
        bbox_head=[
            dict(
                type="negvision.AbeTBBoxHead",
                in_channels=256,
                fc_out_channels=1024,
                roi_feat_size=7,
                num_classes=20,
                initial_temperature=0.5,
                bbox_coder=dict(
                    type="DeltaXYWHBBoxCoder",
                    target_stds=[0.1 / n, 0.1 / n, 0.2 / n, 0.2 / n],
                ),
                reg_class_agnostic=True,
                loss_bbox=dict(type="SmoothL1Loss", beta=1.0, loss_weight=1.0),
            )
            for n in sharpness
        ],
    ),
    train_cfg=dict(
        rcnn=[
            dict(
                assigner=dict(
                    type="MaxIoUAssigner", pos_iou_thr=iou, neg_iou_thr=iou, min_pos_iou=iou
                ),
                sampler=dict(type="RandomSampler", num=512, pos_fraction=0.25),
                pos_weight=-1,
            )
            for iou in (0.5, 0.6, 0.7)
        ],
    ),
)
