# Plain ArcFace, IResNet-50, CASIA-WebFace.
_base_ = [
    "../_base_/models/face_iresnet.py",
    "../_base_/datasets/casia_face.py",
    "../_base_/schedules/schedule_face_20e.py",
    "../_base_/face_runtime.py",
]

model = dict(backbone=dict(depth=50), head=dict(num_classes={{_base_.num_classes}}))
