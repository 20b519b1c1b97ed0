# ResNet-20 for 32 x 32 images, with AbeT's head.
model = dict(
    type="negvision.AbeTClassifier",
    backbone=dict(type="negvision.ResNetCIFAR", depth=20),
    num_classes=10,
    in_features=64,
    # Mean and deviation of CIFAR-10's training images.
    data_preprocessor=dict(
        type="mmengine.ImgDataPreprocessor",
        mean=[125.3, 123.0, 113.9],
        std=[63.0, 62.1, 66.7],
        bgr_to_rgb=True,
    ),
)
