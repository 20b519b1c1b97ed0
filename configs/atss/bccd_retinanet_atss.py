# The other side of the comparison: the RetinaNet of bccd_retinanet.py, positives chosen by ATSS.
_base_ = "./bccd_retinanet.py"

model = dict(
    bbox_head=dict(type="negvision.ATSSRetinaHead"),
    train_cfg=dict(assigner=dict(_delete_=True, type="negvision.ATSSAssigner", topk=9)),
)
