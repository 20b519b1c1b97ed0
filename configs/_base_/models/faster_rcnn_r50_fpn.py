# Faster R-CNN with an FPN, that of mmdet with a box head whose detections carry baseline scores.
_base_ = "mmdet::_base_/models/faster-rcnn_r50_fpn.py"

model = dict(
    data_preprocessor=dict(pad_mask=False),
    roi_head=dict(bbox_head=dict(type="negvision.OODBBoxHead")),
)
