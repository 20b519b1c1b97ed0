# AbeT on DeepLabV3+ R50, trained on Cityscapes, tested on Lost and Found: FPR@95 3.4, AP 68.4 and
# AUROC 99.1 in the paper, with a WideResNet-38 trained on Mapillary first.
_base_ = [
    "./_base_/models/deeplabv3plus_r50.py",
    "./_base_/datasets/cityscapes_segmentation.py",
    "./_base_/schedules/schedule_80k.py",
    "./_base_/segmentation_runtime.py",
]

model = dict(type="negvision.AbeTEncoderDecoder")
