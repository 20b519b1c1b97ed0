# Plain ArcFace on a part of LFW, on two CPU cores.
_base_ = [
    "../_base_/models/face_slim.py",
    "../_base_/datasets/lfw112_face.py",
    "../_base_/schedules/schedule_face_slim.py",
    "../_base_/face_slim_runtime.py",
]

model = dict(head=dict(num_classes={{_base_.num_classes}}))
