# Single digits of the embedded set, 32 x 32: eight classes to tell apart, 7 and 9 held out.
dataset_type = "negvision.DigitsCropDataset"
data_root = "{{$NEGVISION_DATA:data}}/digits/"

train_pipeline = [
    dict(type="negvision.LoadImageFromFile"),
    # No flips: a mirrored digit is another sign.
    dict(type="negvision.RandomPadCrop", padding=4),
    dict(type="negvision.PackImageInputs"),
]
test_pipeline = [
    dict(type="negvision.LoadImageFromFile"),
    dict(type="negvision.PackImageInputs"),
]

common = dict(type=dataset_type, data_root=data_root, pipeline=test_pipeline, test_mode=True)
train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file="crops/train_id.npz",
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=256,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="ConcatDataset",
        ignore_keys=["classes"],
        datasets=[
            dict(ann_file="crops/test_id.npz", **common),
            dict(ann_file="crops/test_ood.npz", source="held-out digits", is_ood=True, **common),
        ],
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type="negvision.OODImageMetric")
test_evaluator = val_evaluator
