# Plain DeepLabV3+ on CamVid without people, from weights of ImageNet, scored by its largest logit.
_base_ = [
    "../_base_/models/deeplabv3plus_lite0.py",
    "../_base_/datasets/camvid_ood_segmentation.py",
    "../_base_/schedules/schedule_finetune.py",
    "../_base_/segmentation_slim_runtime.py",
]

model = dict(
    type="negvision.OODEncoderDecoder",
    score="max_logit",
    decode_head=dict(num_classes={{_base_.num_classes}}),
)

randomness = dict(seed=0)
