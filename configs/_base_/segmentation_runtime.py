# Runs of segmentation, counted in iterations.
_base_ = "./default_runtime.py"

default_scope = "mmseg"

default_hooks = dict(
    logger=dict(log_metric_by_epoch=False),
    # The last one is always saved.
    checkpoint=dict(by_epoch=False, interval=8000),
    # A sheet of OOD maps in the work dir, and `negvision test --drawings`.
    visualization=dict(_delete_=True, type="negvision.OODMapHook"),
)
log_processor = dict(by_epoch=False)
visualizer = dict(type="SegLocalVisualizer")
