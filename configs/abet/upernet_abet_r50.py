# AbeT on UPerNet R50, trained on Cityscapes, tested on Lost and Found.
_base_ = [
    "../_base_/models/upernet_r50.py",
    "../_base_/datasets/cityscapes_segmentation.py",
    "../_base_/schedules/schedule_80k.py",
    "../_base_/segmentation_runtime.py",
]

model = dict(type="negvision.AbeTEncoderDecoder")
