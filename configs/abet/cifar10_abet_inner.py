# AbeT's ablation: inner products instead of cosines.
_base_ = "./cifar10_abet.py"

model = dict(logits="inner")
