# The embedded glyphs, generated at first use: characters instead of faces, 280 to train on and 75
# others in the pairs of test.
_base_ = "./lfw112_face.py"

num_classes = 280
# No flips: a mirrored character is another one.
pipeline = [
    dict(type="negvision.LoadImageFromFile"),
    dict(type="negvision.PackFaceInputs"),
]
files = dict(data_root="{{$NEGVISION_DATA:data}}/face_glyphs/", pipeline=pipeline)

train_dataloader = dict(
    dataset=dict(type="negvision.GlyphListDataset", num_classes=num_classes, **files)
)
val_dataloader = dict(
    dataset=dict(type="negvision.GlyphPairDataset", ann_file="test_pairs.txt", **files)
)
test_dataloader = val_dataloader

val_evaluator = dict(roc_file="roc.png")
test_evaluator = val_evaluator
