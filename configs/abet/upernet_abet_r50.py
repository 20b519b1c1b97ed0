# AbeT on UPerNet R50, trained on Cityscapes, tested on Lost and Found.
# UPerNet of Xiao et al., ECCV 2018, on ResNet-50 without dilation, as in mmseg.
_base_ = "../abet_deeplabv3plus_r50.py"

model = dict(
    backbone=dict(dilations=(1, 1, 1, 1), strides=(1, 2, 2, 2), contract_dilation=False),
    decode_head=dict(
        _delete_=True,
        type="UPerHead",
        in_channels=[256, 512, 1024, 2048],
        in_index=[0, 1, 2, 3],
        channels=512,
        pool_scales=(1, 2, 3, 6),
        dropout_ratio=0.1,
        num_classes=19,
        norm_cfg=dict(type="SyncBN", requires_grad=True),
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", avg_non_ignore=True, loss_weight=1.0),
    ),
)
