# UNPG with ArcFace's margin, IResNet-50, MS1MV2, by the paper's recipe.
_base_ = [
    "./_base_/models/face_iresnet.py",
    "./_base_/datasets/ms1mv2_face.py",
    "./_base_/schedules/schedule_face_20e.py",
    "./_base_/face_runtime.py",
]

model = dict(head=dict(num_classes={{_base_.num_classes}}, metric_pairs=True))
