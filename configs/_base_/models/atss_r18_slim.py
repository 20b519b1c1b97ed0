# A detector small enough to train from scratch on two CPU cores: three stages of ResNet-18, few
# channels, three levels, two convolutions per tower.
_base_ = "./atss_r50_fpn.py"

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
        start_level=0,
        add_extra_convs=False,
        num_outs=3,
        norm_cfg=dict(type="BN", requires_grad=True),
    ),
    bbox_head=dict(
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        # Learns faster than GroupNorm: 0.26 AP against 0.17 after 600 batches of 8 digit images.
        norm_cfg=dict(type="BN", requires_grad=True),
        # Half the usual size: the images are small, and so are the objects in them.
        anchor_generator=dict(octave_base_scale=4, strides=[8, 16, 32]),
    ),
    test_cfg=dict(nms_pre=300),
)
