# The embedded digits with a class for each pixel, 192 x 192, of which 7 and 9 are held out: void in
# training, out of distribution in test.
data_root = "{{$NEGVISION_DATA:data}}/digits/"
ood_classes = ["seven", "nine"]
# The background and eight digits.
num_classes = 9
# Training on smaller images makes a step a third cheaper.
crop_size = (160, 160)

train_pipeline = [
    dict(type="negvision.LoadImageFromFile"),
    dict(type="negvision.LoadSegAnnotations"),
    # No flips: a mirrored digit is another sign.
    dict(type="negvision.SegRandomCrop", crop_size=crop_size),
    dict(type="negvision.PackSegInputs"),
]
test_pipeline = [
    dict(type="negvision.LoadImageFromFile"),
    dict(type="negvision.LoadSegAnnotations"),
    dict(type="negvision.LoadOODMap", ood_classes=ood_classes),
    dict(type="negvision.PackSegInputs"),
]

dataset = dict(type="negvision.DigitsSegDataset", data_root=data_root)
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(**dataset, split="train", pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=20,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(**dataset, split="val", test_mode=True, pipeline=test_pipeline),
)
test_dataloader = dict(
    batch_size=20,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(**dataset, split="test", test_mode=True, pipeline=test_pipeline),
)

val_evaluator = dict(type="negvision.OODPixelMetric", min_component_size=50, min_object_size=10)
test_evaluator = val_evaluator
