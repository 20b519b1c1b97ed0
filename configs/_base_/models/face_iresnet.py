# IResNet and its embedding, under ArcFace's margin. `depth` and `num_classes` are the leaf's.
embedding_size = 512
model = dict(
    type="negvision.FaceRecognizer",
    backbone=dict(type="negvision.IResNet", depth=50),
    neck=dict(
        type="negvision.FaceEmbeddingNeck",
        in_channels=512,
        spatial_size=7,
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
