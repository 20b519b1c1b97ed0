# A segmentor small enough to train from scratch on two CPU cores: three stages of ResNet-18, few
# channels, an output stride of 16 without any dilation, and no auxiliary head.
_base_ = "./deeplabv3plus_r50.py"

norm_cfg = dict(type="BN", requires_grad=True)

model = dict(
    data_preprocessor=dict(size_divisor=16),
    backbone=dict(
        depth=18,
        stem_channels=24,
        base_channels=48,
        num_stages=3,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        out_indices=(0, 1, 2),
        norm_cfg=norm_cfg,
        contract_dilation=False,
        init_cfg=None,
    ),
    decode_head=dict(
        in_channels=192,
        in_index=2,
        channels=96,
        # At an output stride of 16 and half the image, as far as the paper's 6, 12 and 18.
        dilations=(1, 3, 6, 9),
        c1_in_channels=48,
        c1_channels=24,
        norm_cfg=norm_cfg,
    ),
    auxiliary_head=None,
)
