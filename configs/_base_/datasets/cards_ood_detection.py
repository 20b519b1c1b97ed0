# Playing cards on a table: 167 photos of ace, jack, king and nine to train on; 38 of them and 75 of
# the held-out queen and ten to test on. 378 x 504 pixels for the most part, here 240 x 320.
dataset_type = "negvision.CocoDataset"
data_root = "{{$NEGVISION_DATA:data}}/cards/"
metainfo = dict(classes=("ace", "jack", "king", "nine"))
scale = (320, 240)

train_pipeline = [
    dict(type="negvision.LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="RandomResize", scale=scale, ratio_range=(0.8, 1.2), keep_ratio=True),
    # A card has no upright position, but a mirrored one is another.
    dict(type="RandomFlip", prob=0.5, direction="diagonal"),
    dict(type="PhotoMetricDistortion"),
    dict(type="negvision.PackDetInputs"),
]
test_pipeline = [
    dict(type="negvision.LoadImageFromFile"),
    dict(type="Resize", scale=scale, keep_ratio=True),
    # After Resize: figures are computed on the original image.
    dict(type="LoadAnnotations", with_bbox=True),
    dict(
        type="negvision.PackDetInputs",
        meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor", "is_ood"),
    ),
]

train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        metainfo=metainfo,
        ann_file="annotations/train_id.json",
        data_prefix=dict(img="images/"),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="ConcatDataset",
        datasets=[
            dict(
                type=dataset_type,
                data_root=data_root,
                metainfo=metainfo,
                ann_file="annotations/test_id.json",
                data_prefix=dict(img="images/"),
                test_mode=True,
                pipeline=test_pipeline,
            ),
            dict(
                type="negvision.OODCocoDataset",
                data_root=data_root,
                metainfo=metainfo,
                ann_file="annotations/test_ood.json",
                data_prefix=dict(img="images/"),
                test_mode=True,
                pipeline=test_pipeline,
            ),
        ],
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(
    type="negvision.OODBoxMetric",
    ann_file=data_root + "annotations/test_id.json",
    # All cards are large by COCO's limits; these part them into thirds.
    area_limits=(132.0**2, 160.0**2),
)
test_evaluator = val_evaluator
