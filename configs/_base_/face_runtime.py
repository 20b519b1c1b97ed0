# Runs of face recognition, counted in epochs.
_base_ = "./classification_runtime.py"

default_hooks = dict(logger=dict(interval=50), checkpoint=dict(max_keep_ckpts=3))
custom_hooks = [dict(type="negvision.PairScoreHook")]
