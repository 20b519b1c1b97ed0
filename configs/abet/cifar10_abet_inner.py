# AbeT's ablation: inner products in the place of cosines.
_base_ = "./cifar10_abet.py"

model = dict(logits="inner")
