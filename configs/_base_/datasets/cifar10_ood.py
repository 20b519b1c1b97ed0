# CIFAR-10 to train on; its test images against those of CIFAR-100 and MNIST as unknown ones.
dataset_type = "negvision.PackedImageDataset"
data_root = "{{$NEGVISION_DATA:data}}/cifar/"

train_pipeline = [
    dict(type="negvision.LoadImageFromFile"),
    dict(type="negvision.RandomPadCrop", padding=4),
    dict(type="negvision.RandomFlip", prob=0.5),
    dict(type="negvision.TrivialAugment"),
    dict(type="negvision.PackImageInputs"),
]
test_pipeline = [
    dict(type="negvision.LoadImageFromFile"),
    # MNIST is 28 x 28.
    dict(type="Resize", scale=(32, 32)),
    dict(type="negvision.PackImageInputs"),
]

common = dict(type=dataset_type, data_root=data_root, pipeline=test_pipeline, test_mode=True)
test_sets = [
    dict(ann_file="cifar10_test.npz", source="cifar10", **common),
    dict(ann_file="cifar100_test.npz", source="cifar100", is_ood=True, **common),
    dict(ann_file="mnist_test.npz", source="mnist", is_ood=True, **common),
]

train_dataloader = dict(
    batch_size=64,
    # Reading takes about a quarter of the time of the network on two cores: a process for it would
    # take one of the two from the network.
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file="cifar10_train.npz",
        pipeline=train_pipeline,
    ),
)
# Every epoch the first thousand images of each set, in which the classes are balanced; no choice
# is made by what they show, which is whether AbeT has collapsed.
val_dataloader = dict(
    batch_size=500,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="ConcatDataset",
        ignore_keys=["classes"],
        datasets=[dict(indices=1000, **dataset) for dataset in test_sets],
    ),
)
test_dataloader = dict(
    batch_size=500,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="ConcatDataset", ignore_keys=["classes"], datasets=test_sets),
)

val_evaluator = dict(type="negvision.OODImageMetric", resamples=100)
test_evaluator = dict(type="negvision.OODImageMetric")
