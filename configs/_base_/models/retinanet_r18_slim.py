# RetinaNet with one anchor per location on the network of atss_r18_slim: the same backbone, neck,
# towers and anchors, without centerness.
_base_ = "./atss_r18_slim.py"

model = dict(
    type="RetinaNet",
    bbox_head=dict(
        _delete_=True,
        type="RetinaHead",
        num_classes=80,
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        norm_cfg=dict(type="BN", requires_grad=True),
        anchor_generator=dict(
            type="AnchorGenerator",
            ratios=[1.0],
            octave_base_scale=4,
            scales_per_octave=1,
            strides=[8, 16, 32],
        ),
        bbox_coder=dict(
            type="DeltaXYWHBBoxCoder",
            target_means=[0.0, 0.0, 0.0, 0.0],
            target_stds=[0.1, 0.1, 0.2, 0.2],
        ),
        reg_decoded_bbox=True,
        loss_cls=dict(type="FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type="negvision.BoxIoULoss", mode="giou", loss_weight=2.0),
    ),
    train_cfg=dict(
        assigner=dict(
            _delete_=True,
            type="MaxIoUAssigner",
            pos_iou_thr=0.5,
            neg_iou_thr=0.4,
            min_pos_iou=0,
            ignore_iof_thr=-1,
        ),
        # Focal loss uses every anchor, positive or negative.
        sampler=dict(type="PseudoSampler"),
    ),
)
