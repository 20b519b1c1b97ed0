# K-FACE, Korean faces under controlled light, pose, expression and accessories: 370 identities to
# train on, 30 others in the pairs of a test protocol (Q1 to Q4). Given out on request. Convert
# it to two text files of aligned 112 x 112 images: lines `path label` and lines `path path same`.
_base_ = "./face_records.py"

num_classes = 370
files = dict(
    data_root="{{$NEGVISION_DATA:data}}/kface/",
    data_prefix=dict(img="images/"),
)
train_dataloader = dict(
    dataset=dict(
        type="negvision.FaceListDataset", ann_file="train.txt", num_classes=num_classes, **files
    )
)
val_dataloader = dict(
    dataset=dict(type="negvision.FacePairDataset", ann_file="q4_pairs.txt", **files)
)
test_dataloader = val_dataloader
