# Playing cards on a table: 167 photos of ace, jack, king and nine to train on, 38 to test on. 378 x
# 504 pixels for the most part, here 240 x 320.
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
    _base_.pack,
]

files = dict(
    data_root=data_root,
    metainfo=dict(classes=("ace", "jack", "king", "nine")),
    data_prefix=dict(img="images/"),
)
train_dataloader = dict(
    dataset=dict(ann_file="annotations/train_id.json", pipeline=train_pipeline, **files)
)
val_dataloader = dict(
    dataset=dict(ann_file="annotations/test_id.json", pipeline=test_pipeline, **files)
)
test_dataloader = val_dataloader

val_evaluator = dict(ann_file=data_root + "annotations/test_id.json")
test_evaluator = val_evaluator
