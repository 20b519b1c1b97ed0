# Short runs on a CPU: only the last weights are kept, and convolutions have their channels last.
_base_ = "./segmentation_runtime.py"

default_hooks = dict(checkpoint=dict(interval=-1))
custom_hooks = [dict(type="negvision.ChannelsLastHook")]
