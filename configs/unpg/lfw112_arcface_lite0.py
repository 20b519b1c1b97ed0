# Plain ArcFace on a part of LFW, from weights of ImageNet, at 112 x 112 pixels.
_base_ = [
    "../_base_/models/face_lite0.py",
    "../_base_/datasets/lfw112_face.py",
    "../_base_/schedules/schedule_face_slim.py",
    "../_base_/face_slim_runtime.py",
]

model = dict(head=dict(num_classes={{_base_.num_classes}}))

# Without Resize: the images have this size.
train_pipeline = [_base_.train_pipeline[0], *_base_.train_pipeline[2:]]
test_pipeline = [_base_.test_pipeline[0], *_base_.test_pipeline[2:]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

# SGD at the rate of training from scratch loses the weights in its first steps.
optim_wrapper = dict(
    _delete_=True,
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=0.001, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, custom_keys=dict(backbone=dict(lr_mult=0.2))),
)
