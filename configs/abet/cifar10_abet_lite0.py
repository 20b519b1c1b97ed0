# AbeT on CIFAR-10, from weights of ImageNet. The network halves its images five times, so they are
# enlarged.
_base_ = [
    "../_base_/models/classifier_lite0.py",
    "../_base_/datasets/cifar10_ood.py",
    "../_base_/classification_runtime.py",
]

resize = dict(type="Resize", scale=(96, 96))
train_pipeline = [*_base_.train_pipeline[:-1], resize, _base_.train_pipeline[-1]]
test_pipeline = [_base_.test_pipeline[0], resize, _base_.test_pipeline[-1]]
test_sets = [{**files, "pipeline": test_pipeline} for files in _base_.test_sets]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(datasets=[{**files, "indices": 1000} for files in test_sets]))
test_dataloader = dict(dataset=dict(datasets=test_sets))

max_epochs = 4
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=max_epochs, val_interval=1)

epochs = dict(by_epoch=True, convert_to_iter_based=True)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, end=100),
    dict(type="CosineAnnealingLR", eta_min=0, end=max_epochs, **epochs),
]
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=0.001, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, custom_keys=dict(backbone=dict(lr_mult=0.2))),
)
