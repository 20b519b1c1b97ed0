# Faster R-CNN small enough to train from scratch on two CPU cores: three stages of ResNet-18, few
# channels, three levels, 64 RoIs per image to train on and 100 to test on.
_base_ = "./faster_rcnn_r50_fpn.py"

model = dict(
    backbone=dict(
        depth=18,
        stem_channels=24,
        base_channels=48,
        num_stages=3,
        # The first stage halves the image too: layers at a quarter of its size cost most and
        # see little.
        strides=(2, 2, 2),
        dilations=(1, 1, 1),
        out_indices=(0, 1, 2),
        # From scratch there are no statistics worth keeping, and batches are large enough.
        frozen_stages=-1,
        norm_eval=False,
        zero_init_residual=False,
        init_cfg=None,
    ),
    neck=dict(
        in_channels=[48, 96, 192],
        out_channels=64,
        num_outs=3,
        norm_cfg=dict(type="BN", requires_grad=True),
    ),
    rpn_head=dict(
        in_channels=64,
        feat_channels=64,
        # Half the usual size: the images are small, and so are the objects in them.
        anchor_generator=dict(scales=[4], strides=[8, 16, 32]),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(
            roi_layer=dict(sampling_ratio=2),
            out_channels=64,
            featmap_strides=[8, 16, 32],
        ),
        bbox_head=dict(in_channels=64, fc_out_channels=256),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=128)),
        rpn_proposal=dict(nms_pre=500, max_per_img=200),
        rcnn=dict(sampler=dict(num=64)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=300, max_per_img=100)),
)
