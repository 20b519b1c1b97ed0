# CosFace with UNPG, IResNet-50, CASIA-WebFace.
_base_ = "./casia_r50_cosface.py"

model = dict(head=dict(metric_pairs=True))
