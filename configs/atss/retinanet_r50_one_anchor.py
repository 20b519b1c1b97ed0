# "RetinaNet (#A=1)" of the paper's table 3, AP 37.0: the network of ATSS (GroupNorm, GIoU,
# centerness, a scale per level) with anchors assigned by max-IoU and positive only where their
# center lies inside the box. retinanet_r50_atss.py differs only in the assigner.
_base_ = "../atss_r50.py"

model = dict(
    train_cfg=dict(
        assigner=dict(
            _delete_=True,
            type="negvision.MaxIoUAssigner",
            pos_iou_thr=0.5,
            neg_iou_thr=0.4,
            min_pos_iou=0,
            ignore_iof_thr=-1,
            center_in_box=True,
        )
    )
)
