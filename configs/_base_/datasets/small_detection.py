# Loaders of COCO files of a few hundred images, which are read in this process. A set adds its
# files and its pipelines; annotations are loaded after Resize in test, since metrics are computed
# on the original image.
load = [
    dict(type="negvision.LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
]
pack = dict(
    type="negvision.PackDetInputs",
    meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor"),
)

train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(type="negvision.CocoDataset"),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="negvision.CocoDataset", test_mode=True),
)
test_dataloader = val_dataloader

val_evaluator = dict(type="negvision.CocoMetric")
test_evaluator = val_evaluator
