# FCOS whose positives are chosen by ATSS: AP 39.2 in table 3 of the paper. Points have no size,
# so they are assigned as squares of 8 strides; boxes are still regressed from the points.
_base_ = "./fcos_r50.py"

model = dict(
    bbox_head=dict(type="negvision.ATSSFCOSHead", anchor_scale=8),
    train_cfg=dict(assigner=dict(type="negvision.ATSSAssigner", topk=9)),
)
