# Cityscapes to train on and for mIoU; Lost and Found to test what is unknown: obstacles on roads,
# with all but the free road around them void. Both have 2048 x 1024 pixels.
data_root = "{{$NEGVISION_DATA:data}}/cityscapes/"
lost_and_found = "{{$NEGVISION_DATA:data}}/lost_and_found/"
crop_size = (512, 1024)
classes = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign",
    "vegetation", "terrain", "sky", "person", "rider", "car", "truck", "bus", "train",
    "motorcycle", "bicycle",
)  # fmt: skip

train_pipeline = [
    dict(type="negvision.LoadImageFromFile"),
    dict(type="negvision.LoadSegAnnotations"),
    dict(type="RandomResize", scale=(2048, 1024), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type="negvision.SegRandomCrop", crop_size=crop_size, cat_max_ratio=0.75),
    dict(type="negvision.RandomFlip", prob=0.5),
    dict(type="negvision.SegPhotoMetricDistortion"),
    dict(type="negvision.PackSegInputs"),
]
val_pipeline = [
    dict(type="negvision.LoadImageFromFile"),
    # Metrics are computed on the original image.
    dict(type="negvision.LoadSegAnnotations"),
    dict(type="negvision.PackSegInputs"),
]
test_pipeline = [
    dict(type="negvision.LoadImageFromFile"),
    # In the labelTrainIds of this set 1 is the free road, 2 an obstacle, 0 what is harmless.
    dict(type="negvision.LoadOODMap", ood_classes=[2], void=[0]),
    dict(type="negvision.PackSegInputs"),
]

dataset = dict(
    type="negvision.SegDataset",
    data_root=data_root,
    img_suffix="_leftImg8bit.png",
    seg_map_suffix="_gtFine_labelTrainIds.png",
    metainfo=dict(classes=classes),
)
train_dataloader = dict(
    batch_size=2,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        **dataset,
        data_prefix=dict(img_path="leftImg8bit/train", seg_map_path="gtFine/train"),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        **dataset,
        data_prefix=dict(img_path="leftImg8bit/val", seg_map_path="gtFine/val"),
        test_mode=True,
        pipeline=val_pipeline,
    ),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=2,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        # Its ids are not those of the classes that are predicted.
        type="BaseSegDataset",
        data_root=lost_and_found,
        img_suffix="_leftImg8bit.png",
        seg_map_suffix="_gtCoarse_labelTrainIds.png",
        metainfo=dict(classes=classes),
        data_prefix=dict(img_path="leftImg8bit/test", seg_map_path="gtCoarse/test"),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)

val_evaluator = dict(type="negvision.IoUMetric", iou_metrics=["mIoU"])
test_evaluator = dict(type="negvision.OODPixelMetric", min_component_size=50, min_object_size=10)
