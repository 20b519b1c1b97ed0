# What the large face sets share: aligned 112 x 112 images in InsightFace's .rec, verified on LFW in
# a .bin beside it. A set adds `data_root` and `num_classes`.
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
    # Workers send a batch as one tensor; one per face takes longer than to load it.
    collate_fn=dict(type="default_collate"),
    drop_last=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(type="negvision.FaceRecordDataset", ann_file="train.rec", pipeline=train_pipeline),
)
# The harder sets beside it are evaluated with
# `--cfg-options test_dataloader.dataset.ann_file=cfp_fp.bin` (or agedb_30.bin).
val_dataloader = dict(
    batch_size=64,
    num_workers=2,
    collate_fn=dict(type="default_collate"),
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="negvision.FaceBinDataset", ann_file="lfw.bin", pipeline=test_pipeline),
)
test_dataloader = val_dataloader

val_evaluator = dict(type="negvision.VerificationMetric")
test_evaluator = val_evaluator
