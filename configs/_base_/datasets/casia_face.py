# CASIA-WebFace ("faces_webface_112x112"): 0.49 million images of 10,572 identities, 112 x 112 and
# aligned, in the .rec of InsightFace; LFW as .bin beside it.
num_classes = 10572
data_root = "{{$NEGVISION_DATA:data}}/faces_webface_112x112/"

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
        type="negvision.FaceRecordDataset",
        data_root=data_root,
        ann_file="train.rec",
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
        type="negvision.FaceBinDataset",
        data_root=data_root,
        ann_file="lfw.bin",
        pipeline=test_pipeline,
    ),
)
# The harder sets beside it are evaluated with
# `--cfg-options test_dataloader.dataset.ann_file=cfp_fp.bin` (or agedb_30.bin).
test_dataloader = val_dataloader

val_evaluator = dict(type="negvision.VerificationMetric")
test_evaluator = val_evaluator
