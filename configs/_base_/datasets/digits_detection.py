# The embedded digits, generated at first use: 3,200 + 200 + 200 images of 192 x 192.
# With 800 to train on, a small network finds 0.90 of the digits that it has seen (AP50) and 0.76 of
# the others.
data_root = "{{$NEGVISION_DATA:data}}/digits/"
size = (192, 192)
# Training on smaller images makes a step a third cheaper; the scale jitter covers the difference.
crop = (160, 160)
image_meta = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")

train_pipeline = [
    dict(type="negvision.LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="RandomResize", scale=[(152, 152), (208, 208)], keep_ratio=True),
    # No flips: a mirrored digit is another sign. No color jitter either: the digits have all
    # colors already, and the network would learn more slowly.
    dict(type="RandomCrop", crop_size=crop, allow_negative_crop=True),
    dict(type="Pad", size=crop, pad_val=dict(img=(114, 114, 114))),
    dict(type="negvision.PackDetInputs", meta_keys=image_meta),
]
test_pipeline = [
    dict(type="negvision.LoadImageFromFile"),
    dict(type="Resize", scale=size, keep_ratio=True),
    # After Resize: metrics are computed on the original image.
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="negvision.PackDetInputs", meta_keys=image_meta),
]

common = dict(type="negvision.DigitsDataset", data_root=data_root)
val_loader = dict(batch_size=20, num_workers=0, sampler=dict(type="DefaultSampler", shuffle=False))
train_dataloader = dict(
    batch_size=8,
    # Reading these small images takes about 1 ms each: a process for it costs more than it saves.
    num_workers=0,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        ann_file="annotations/instances_train.json",
        data_prefix=dict(img="train/"),
        pipeline=train_pipeline,
        **common,
    ),
)
common.update(test_mode=True, pipeline=test_pipeline)
val_dataloader = dict(
    dataset=dict(ann_file="annotations/instances_val.json", data_prefix=dict(img="val/"), **common),
    **val_loader,
)
test_dataloader = dict(
    dataset=dict(
        ann_file="annotations/instances_test.json", data_prefix=dict(img="test/"), **common
    ),
    **val_loader,
)

val_evaluator = dict(
    type="negvision.CocoMetric", ann_file=data_root + "annotations/instances_val.json"
)
test_evaluator = dict(
    type="negvision.CocoMetric", ann_file=data_root + "annotations/instances_test.json"
)
