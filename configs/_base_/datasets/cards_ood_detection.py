# Playing cards on a table: 167 photos of ace, jack, king and nine to train on; 38 of them and 75 of
# the held-out queen and ten to test on. 378 x 504 pixels for the most part, here 240 x 320.
_base_ = "./small_detection.py"

data_root = "{{$NEGVISION_DATA:data}}/cards/"
scale = (320, 240)
train_pipeline = [
    *_base_.load,
    dict(type="RandomResize", scale=scale, ratio_range=(0.8, 1.2), keep_ratio=True),
    # A card has no upright position, but a mirrored one is another.
    dict(type="RandomFlip", prob=0.5, direction="diagonal"),
    dict(type="PhotoMetricDistortion"),
    dict(type="negvision.PackDetInputs"),
]
test_pipeline = [
    _base_.load[0],
    dict(type="Resize", scale=scale, keep_ratio=True),
    _base_.load[1],
    dict(type="negvision.PackDetInputs", meta_keys=(*_base_.pack.meta_keys, "is_ood")),
]

files = dict(
    data_root=data_root,
    metainfo=dict(classes=("ace", "jack", "king", "nine")),
    data_prefix=dict(img="images/"),
)
test_files = dict(test_mode=True, pipeline=test_pipeline, **files)
train_dataloader = dict(
    dataset=dict(ann_file="annotations/train_id.json", pipeline=train_pipeline, **files)
)
known = dict(type="negvision.CocoDataset", ann_file="annotations/test_id.json", **test_files)
unknown = dict(type="negvision.OODCocoDataset", ann_file="annotations/test_ood.json", **test_files)
val_dataloader = dict(dataset=dict(_delete_=True, type="ConcatDataset", datasets=[known, unknown]))
test_dataloader = val_dataloader

val_evaluator = dict(
    type="negvision.OODBoxMetric",
    ann_file=data_root + "annotations/test_id.json",
    # All cards are large by COCO's limits; these divide them into thirds.
    area_limits=(132.0**2, 160.0**2),
)
test_evaluator = val_evaluator
