# AbeT on PSPNet R50, trained on Cityscapes, tested on Lost and Found.
# PSPNet of Zhao et al., CVPR 2017, on ResNet-50 with an output stride of 8, as in mmseg.
_base_ = "../abet_deeplabv3plus_r50.py"

model = dict(
    decode_head=dict(
        _delete_=True,
        type="PSPHead",
        in_channels=2048,
        in_index=3,
        channels=512,
        pool_scales=(1, 2, 3, 6),
        dropout_ratio=0.1,
        num_classes=19,
        norm_cfg=dict(type="SyncBN", requires_grad=True),
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", avg_non_ignore=True, loss_weight=1.0),
    )
)
