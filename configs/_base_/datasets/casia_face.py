# CASIA-WebFace ("faces_webface_112x112"): 0.49 million images of 10,572 identities.
_base_ = "./face_records.py"

num_classes = 10572
data_root = "{{$NEGVISION_DATA:data}}/faces_webface_112x112/"
train_dataloader = dict(dataset=dict(data_root=data_root, num_classes=num_classes))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
