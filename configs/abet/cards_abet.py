# AbeT on playing cards, from scratch on two CPU cores, with queen and ten held out.
_base_ = "./cards_faster_rcnn.py"

model = dict(roi_head=dict(bbox_head=dict(type="negvision.AbeTBBoxHead")))
