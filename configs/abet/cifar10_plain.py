# A plain ResNet-20 on CIFAR-10, for the baselines of AbeT.
_base_ = "./cifar10_abet.py"

model = dict(type="negvision.OODClassifier")
