# UNPG on the embedded glyphs, from scratch on two CPU cores: `make quickstart-face` runs this.
_base_ = [
    "../_base_/models/face_slim.py",
    "../_base_/datasets/glyphs_face.py",
    "../_base_/schedules/schedule_face_slim.py",
    "../_base_/face_slim_runtime.py",
]

model = dict(
    neck=dict(spatial_size=2),
    head=dict(
        num_classes={{_base_.num_classes}},
        margin=dict(m=0.3),
        scale=32.0,
        metric_pairs=True,
    ),
    # A mirrored character is another one.
    flip_test=False,
)

max_epochs = 16
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, end=2, **_base_.epochs),
    dict(type="CosineAnnealingLR", eta_min=0, begin=2, end=max_epochs, **_base_.epochs),
]

randomness = dict(seed=0)
