# Part of LFW at 112 x 112: 6,064 images of 547 people to train on, and the 600 pairs of the first
# fold, of other people. Here at 48 x 48.
num_classes = 547
data_root = "{{$NEGVISION_DATA:data}}/lfw112/"
size = (48, 48)

train_pipeline = [
    dict(type="negvision.LoadImageFromFile"),
    dict(type="Resize", scale=size),
    dict(type="negvision.RandomFlip", prob=0.5),
    dict(type="negvision.PackFaceInputs"),
]
test_pipeline = [
    dict(type="negvision.LoadImageFromFile"),
    dict(type="Resize", scale=size),
    dict(type="negvision.PackFaceInputs"),
]

train_dataloader = dict(
    batch_size=128,
    num_workers=0,
    drop_last=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(
        type="negvision.FaceListDataset",
        data_root=data_root,
        ann_file="train.txt",
        num_classes=num_classes,
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=128,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="negvision.FacePairDataset",
        data_root=data_root,
        ann_file="pairs_fold1.txt",
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type="negvision.VerificationMetric")
test_evaluator = val_evaluator
