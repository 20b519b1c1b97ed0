# The embedded glyphs, generated at first use: characters in the place of faces, 280 to train on and
# 75 others in the pairs of test.
num_classes = 280

# No flips: a mirrored character is another one.
pipeline = [
    dict(type="negvision.LoadImageFromFile"),
    dict(type="negvision.PackFaceInputs"),
]

data_root = "{{$NEGVISION_DATA:data}}/face_glyphs/"
train_dataloader = dict(
    batch_size=128,
    num_workers=0,
    drop_last=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(
        type="negvision.GlyphListDataset",
        data_root=data_root,
        ann_file="train.txt",
        num_classes=num_classes,
        pipeline=pipeline,
    ),
)
val_dataloader = dict(
    batch_size=128,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="negvision.GlyphPairDataset",
        data_root=data_root,
        ann_file="test_pairs.txt",
        pipeline=pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type="negvision.VerificationMetric", roc_file="roc.png")
test_evaluator = val_evaluator
