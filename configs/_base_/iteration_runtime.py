# Runs counted in iterations instead of epochs, for data sets of a few hundred images.
_base_ = "./default_runtime.py"

default_hooks = dict(
    logger=dict(log_metric_by_epoch=False),
    # The last one is always saved.
    checkpoint=dict(by_epoch=False, interval=1000),
)
log_processor = dict(by_epoch=False)

# The faster layout on a CPU, where such runs belong.
custom_hooks = [dict(type="negvision.ChannelsLastHook")]
