# MS1MV2 ("faces_emore"): 5.8 million images of 85,742 identities.
_base_ = "./face_records.py"

num_classes = 85742
data_root = "{{$NEGVISION_DATA:data}}/faces_emore/"
train_dataloader = dict(dataset=dict(data_root=data_root, num_classes=num_classes))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
