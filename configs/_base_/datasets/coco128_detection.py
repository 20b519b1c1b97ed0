# 128 + 128 photos of COCO with its 80 categories: real labels under their sparse ids, from the
# annotation file to the table. Far too few to learn 80 classes from.
dataset_type = "negvision.CocoDataset"
data_root = "{{$NEGVISION_DATA:data}}/coco128/"
scale = (256, 256)

train_pipeline = [
    dict(type="negvision.LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="Resize", scale=scale, keep_ratio=True),
    dict(type="RandomFlip", prob=0.5),
    dict(type="negvision.PackDetInputs"),
]
test_pipeline = [
    dict(type="negvision.LoadImageFromFile"),
    dict(type="Resize", scale=scale, keep_ratio=True),
    # After Resize: figures are computed on the original image.
    dict(type="LoadAnnotations", with_bbox=True),
    dict(
        type="negvision.PackDetInputs",
        meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor"),
    ),
]

train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file="annotations/instances_train.json",
        data_prefix=dict(img="train/"),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file="annotations/instances_val.json",
        data_prefix=dict(img="val/"),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(
    type="negvision.CocoMetric", ann_file=data_root + "annotations/instances_val.json"
)
test_evaluator = val_evaluator
