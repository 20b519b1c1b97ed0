# MagFace with UNPG, IResNet-100, MS1MV2.
_base_ = "./ms1mv2_r100_magface.py"

model = dict(head=dict(metric_pairs=True))
