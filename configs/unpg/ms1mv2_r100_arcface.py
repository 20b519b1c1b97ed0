# Plain ArcFace, IResNet-100, MS1MV2.
_base_ = [
    "../_base_/models/face_iresnet.py",
    "../_base_/datasets/ms1mv2_face.py",
    "../_base_/schedules/schedule_face_20e.py",
    "../_base_/face_runtime.py",
]

model = dict(backbone=dict(depth=100), head=dict(num_classes={{_base_.num_classes}}))
