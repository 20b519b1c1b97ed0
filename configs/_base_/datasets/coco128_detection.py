# 128 + 128 photos of COCO with its 80 categories: real labels under their sparse ids, from the
# annotation file to the table. Far too few to learn 80 classes from.
_base_ = "./small_detection.py"

data_root = "{{$NEGVISION_DATA:data}}/coco128/"
resize = dict(type="Resize", scale=(256, 256), keep_ratio=True)
train_pipeline = [
    *_base_.load,
    resize,
    dict(type="RandomFlip", prob=0.5),
    dict(type="negvision.PackDetInputs"),
]
test_pipeline = [_base_.load[0], resize, _base_.load[1], _base_.pack]

train_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        ann_file="annotations/instances_train.json",
        data_prefix=dict(img="train/"),
        pipeline=train_pipeline,
    )
)
val_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        ann_file="annotations/instances_val.json",
        data_prefix=dict(img="val/"),
        pipeline=test_pipeline,
    )
)
test_dataloader = val_dataloader

val_evaluator = dict(ann_file=data_root + "annotations/instances_val.json")
test_evaluator = val_evaluator
