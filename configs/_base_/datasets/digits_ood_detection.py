# The embedded digits with 7 and 9 held out. Training uses images without them; testing uses those
# of test without them, and 100 more that show only them.
_base_ = "./digits_detection.py"

metainfo = dict(classes=("zero", "one", "two", "three", "four", "five", "six", "eight"))
image_meta = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor", "is_ood")
test_pipeline = _base_.test_pipeline[:-1] + [
    dict(type="negvision.PackDetInputs", meta_keys=image_meta)
]

train_dataloader = dict(
    dataset=dict(metainfo=metainfo, ann_file="annotations/instances_train_id.json")
)
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type="ConcatDataset",
        datasets=[
            dict(
                type="negvision.DigitsDataset",
                data_root=_base_.data_root,
                metainfo=metainfo,
                ann_file="annotations/instances_test_id.json",
                data_prefix=dict(img="test/"),
                test_mode=True,
                pipeline=test_pipeline,
            ),
            dict(
                type="negvision.OODDigitsDataset",
                data_root=_base_.data_root,
                metainfo=metainfo,
                ann_file="annotations/instances_test_ood.json",
                data_prefix=dict(img="test_ood/"),
                test_mode=True,
                pipeline=test_pipeline,
            ),
        ],
    )
)
test_dataloader = val_dataloader

val_evaluator = dict(
    _delete_=True,
    type="negvision.OODBoxMetric",
    ann_file=_base_.data_root + "annotations/instances_test_id.json",
)
test_evaluator = val_evaluator
