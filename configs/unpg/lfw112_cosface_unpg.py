# CosFace with UNPG on a part of LFW, on two CPU cores.
_base_ = "./lfw112_cosface.py"

model = dict(head=dict(metric_pairs=True))
