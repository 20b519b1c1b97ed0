# FCOS as the paper of ATSS takes it: GIoU, GroupNorm, centerness on the regression branch and
# distances in units of the stride. Every point inside a box and of its range of sizes is positive.
_base_ = "./atss_r50_fpn.py"

model = dict(
    type="FCOS",
    neck=dict(relu_before_extra_convs=True),
    bbox_head=dict(
        _delete_=True,
        type="FCOSHead",
        num_classes=80,
        in_channels=256,
        feat_channels=256,
        stacked_convs=4,
        strides=[8, 16, 32, 64, 128],
        norm_on_bbox=True,
        centerness_on_reg=True,
        dcn_on_last_conv=False,
        center_sampling=False,
        conv_bias=True,
        loss_cls=dict(type="FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type="negvision.BoxIoULoss", mode="giou", loss_weight=1.0),
        loss_centerness=dict(type="CrossEntropyLoss", use_sigmoid=True, loss_weight=1.0),
    ),
    # FCOS assigns by rules of its own, without an assigner.
    train_cfg=dict(_delete_=True),
)
