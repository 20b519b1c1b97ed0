# AbeT for images, single digits with 7 and 9 held out, from scratch on two CPU cores: the last of
# the three that `make quickstart-ood` runs.
_base_ = [
    "../_base_/models/cifar_resnet20.py",
    "../_base_/datasets/digits_ood_images.py",
    "../_base_/classification_runtime.py",
]

model = dict(num_classes=8)

max_epochs = 6
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=max_epochs, val_interval=max_epochs)

param_scheduler = [
    dict(type="OneCycleLR", eta_max=0.1, total_steps=max_epochs * 121, by_epoch=False)
]
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=1e-4),
)

randomness = dict(seed=0)
