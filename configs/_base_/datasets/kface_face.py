# K-FACE, Korean faces under controlled light, pose, expression and accessories: 370 identities to
# train on, 30 others in the pairs of a test protocol (Q1 to Q4). It is given out on request; bring
# it to two text files: lines `path label` and lines `path path same`, of aligned 112 x 112 images.
num_classes = 370
data_root = "{{$NEGVISION_DATA:data}}/kface/"

train_pipeline = [
    dict(type="negvision.LoadImageFromFile"),
    dict(type="negvision.RandomFlip", prob=0.5),
    dict(type="negvision.PackFaceInputs"),
]
test_pipeline = [
    dict(type="negvision.LoadImageFromFile"),
    dict(type="negvision.PackFaceInputs"),
]

train_dataloader = dict(
    batch_size=64,
    num_workers=4,
    persistent_workers=True,
    # Workers send a batch as one tensor: one a face takes longer than to load it.
    collate_fn=dict(type="default_collate"),
    drop_last=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(
        type="negvision.FaceListDataset",
        data_root=data_root,
        ann_file="train.txt",
        data_prefix=dict(img="images/"),
        num_classes=num_classes,
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=64,
    num_workers=2,
    collate_fn=dict(type="default_collate"),
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="negvision.FacePairDataset",
        data_root=data_root,
        ann_file="q4_pairs.txt",
        data_prefix=dict(img="images/"),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type="negvision.VerificationMetric")
test_evaluator = val_evaluator
