# VOC 2007 + 2012 as known classes and COCO images without any of them as unknown: the files of VOS
# (Du et al., ICLR 2022), which names the 20 classes as COCO does.
dataset_type = "negvision.CocoDataset"
data_root = "{{$NEGVISION_DATA:data}}/"
# As the files have them, in the order of their category ids.
metainfo = dict(
    classes=(
        *("person", "bird", "cat", "cow", "dog", "horse", "sheep", "airplane", "bicycle", "boat"),
        *("bus", "car", "motorcycle", "train", "bottle", "chair", "dining table", "potted plant"),
        *("couch", "tv"),
    )
)

train_pipeline = [
    dict(type="negvision.LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(
        type="RandomChoiceResize",
        scales=[(1333, side) for side in range(480, 801, 32)],
        keep_ratio=True,
    ),
    dict(type="RandomFlip", prob=0.5),
    dict(type="negvision.PackDetInputs"),
]
test_pipeline = [
    dict(type="negvision.LoadImageFromFile"),
    dict(type="Resize", scale=(1333, 800), keep_ratio=True),
    # After Resize: metrics are computed on the original image.
    dict(type="LoadAnnotations", with_bbox=True),
    dict(
        type="negvision.PackDetInputs",
        meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor", "is_ood"),
    ),
]

train_dataloader = dict(
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    batch_sampler=dict(type="AspectRatioBatchSampler"),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        metainfo=metainfo,
        ann_file="VOC_0712_converted/voc0712_train_all.json",
        data_prefix=dict(img="VOC_0712_converted/JPEGImages/"),
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
        type="ConcatDataset",
        datasets=[
            dict(
                type=dataset_type,
                data_root=data_root,
                metainfo=metainfo,
                ann_file="VOC_0712_converted/val_coco_format.json",
                data_prefix=dict(img="VOC_0712_converted/JPEGImages/"),
                test_mode=True,
                pipeline=test_pipeline,
            ),
            dict(
                type="negvision.OODCocoDataset",
                data_root=data_root,
                metainfo=metainfo,
                ann_file="coco/annotations/instances_val2017_ood_rm_overlap.json",
                data_prefix=dict(img="coco/val2017/"),
                test_mode=True,
                pipeline=test_pipeline,
            ),
        ],
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(
    type="negvision.OODBoxMetric",
    ann_file=data_root + "VOC_0712_converted/val_coco_format.json",
)
test_evaluator = val_evaluator
