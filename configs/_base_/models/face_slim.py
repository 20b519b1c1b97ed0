# An IResNet-18 of a sixteenth of the operations, for machines without a GPU and images of 48 x 48.
embedding_size = 128
model = dict(
    type="negvision.FaceRecognizer",
    backbone=dict(type="negvision.IResNet", depth=18, widths=(16, 32, 64, 128)),
    neck=dict(
        type="negvision.FaceEmbeddingNeck",
        in_channels=128,
        spatial_size=3,
        embedding_size=embedding_size,
    ),
    head=dict(
        type="negvision.UNPGLoss",
        num_classes=None,
        embedding_size=embedding_size,
        margin=dict(type="negvision.ArcFaceMargin", m=0.5),
        scale=64.0,
        whisker=1.5,
        metric_pairs=False,
    ),
)
