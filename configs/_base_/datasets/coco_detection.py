# COCO 2017 at 1333 x 800: the longer side at most 1333 pixels, the shorter at most 800.
dataset_type = "negvision.CocoDataset"
data_root = "{{$NEGVISION_DATA:data}}/coco/"

train_pipeline = [
    dict(type="negvision.LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="Resize", scale=(1333, 800), keep_ratio=True),
    dict(type="RandomFlip", prob=0.5),
    dict(type="negvision.PackDetInputs"),
]
test_pipeline = [
    dict(type="negvision.LoadImageFromFile"),
    dict(type="Resize", scale=(1333, 800), keep_ratio=True),
    # After Resize: metrics are computed, and boxes drawn, on the original image.
    dict(type="LoadAnnotations", with_bbox=True),
    dict(
        type="negvision.PackDetInputs",
        meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor"),
    ),
]

train_dataloader = dict(
    batch_size=2,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    # A batch of wide or of tall images wastes less memory on padding than a mixed one.
    batch_sampler=dict(type="AspectRatioBatchSampler"),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file="annotations/instances_train2017.json",
        data_prefix=dict(img="train2017/"),
        # Images without an object teach what is background.
        filter_cfg=dict(filter_empty_gt=False, min_size=32),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file="annotations/instances_val2017.json",
        data_prefix=dict(img="val2017/"),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(
    type="negvision.CocoMetric", ann_file=data_root + "annotations/instances_val2017.json"
)
test_evaluator = val_evaluator
