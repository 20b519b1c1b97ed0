# CamVid in 11 classes, 480 x 360, of which pedestrian and bicyclist are held out: void in training,
# out of distribution in test. Trained and predicted at half the size.
data_root = "{{$NEGVISION_DATA:data}}/camvid/"
scale = (240, 180)
# Multiples of the output stride, so that no padding is needed.
crop_size = (176, 240)
ood_classes = ["pedestrian", "bicyclist"]
classes = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign_symbol", "fence", "car",
)  # fmt: skip
num_classes = len(classes)

train_pipeline = [
    dict(type="negvision.LoadImageFromFile"),
    dict(type="negvision.LoadSegAnnotations"),
    dict(type="RandomResize", scale=scale, ratio_range=(0.8, 1.6), keep_ratio=True),
    dict(type="negvision.SegRandomCrop", crop_size=crop_size, cat_max_ratio=0.9),
    dict(type="negvision.RandomFlip", prob=0.5),
    dict(type="negvision.SegPhotoMetricDistortion"),
    dict(type="negvision.PackSegInputs"),
]
test_pipeline = [
    dict(type="negvision.LoadImageFromFile"),
    dict(type="Resize", scale=scale, keep_ratio=True),
    # After Resize: metrics are computed on the original image.
    dict(type="negvision.LoadSegAnnotations"),
    dict(type="negvision.LoadOODMap", ood_classes=ood_classes),
    dict(type="negvision.PackSegInputs"),
]

dataset = dict(
    type="negvision.SegDataset",
    data_root=data_root,
    classes_file="classes.txt",
    metainfo=dict(classes=classes),
)
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        **dataset,
        data_prefix=dict(img_path="img/train", seg_map_path="ann/train"),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        **dataset,
        data_prefix=dict(img_path="img/val", seg_map_path="ann/val"),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        **dataset,
        data_prefix=dict(img_path="img/test", seg_map_path="ann/test"),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)

# Half of the people in these images have fewer pixels than the 500 of SegmentMeIfYouCan.
val_evaluator = dict(type="negvision.OODPixelMetric", min_component_size=50, min_object_size=10)
test_evaluator = val_evaluator
