# A detector small enough to train from scratch on two CPU cores: a quarter of the channels or
# fewer everywhere, three levels, two convolutions a tower.
_base_ = "./atss_r50_fpn.py"

model = dict(
    backbone=dict(
        depth=18,
        base_channels=24,
        out_indices=(1, 2, 3),
        # From scratch there are no statistics worth keeping, and batches are large enough.
        frozen_stages=-1,
        norm_eval=False,
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
        norm_cfg=dict(type="GN", num_groups=8, requires_grad=True),
        # Half the usual size: the images are small, and so are the objects in them.
        anchor_generator=dict(octave_base_scale=4, strides=[8, 16, 32]),
    ),
    test_cfg=dict(nms_pre=300),
)
