# AbeT on playing cards, from weights of ImageNet, with queen and ten held out.
_base_ = "./cards_faster_rcnn_lite0.py"

model = dict(roi_head=dict(bbox_head=dict(type="negvision.AbeTBBoxHead")))
