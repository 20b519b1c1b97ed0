# An IResNet-18 with a sixteenth of the operations, for machines without a GPU and 48 x 48 images.
_base_ = "./face_iresnet.py"

embedding_size = 128
model = dict(
    backbone=dict(depth=18, widths=(16, 32, 64, 128)),
    neck=dict(in_channels=128, spatial_size=3, embedding_size=embedding_size),
    head=dict(embedding_size=embedding_size),
)
