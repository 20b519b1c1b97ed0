# AbeT on CIFAR-10 with ResNet-20, the paper's recipe.
_base_ = [
    "../_base_/models/cifar_resnet20.py",
    "../_base_/datasets/cifar10_ood.py",
    "../_base_/schedules/schedule_cifar_200e.py",
    "../_base_/classification_runtime.py",
]
