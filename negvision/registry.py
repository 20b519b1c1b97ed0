"""The registries of negvision, children of MMEngine's.

A config names a component as ``negvision.Name``. MMEngine imports this module by the scope before
the dot, so configs need no ``custom_imports``.
"""

from importlib.util import find_spec

from mmengine import registry as mmengine_registry
from mmengine.registry import Registry


def _child(parent: Registry, *locations: str) -> Registry:
    return Registry(parent.name, parent=parent, scope="negvision", locations=list(locations))


def _with_mmseg(*locations: str) -> tuple[str, ...]:
    """``locations`` if mmseg is installed; detection and faces do not need it."""
    return locations if find_spec("mmseg") else ()


DATASETS = _child(
    mmengine_registry.DATASETS,
    "negvision.detection.datasets",
    "negvision.face.datasets",
    "negvision.classification.datasets",
    *_with_mmseg("negvision.segmentation.datasets"),
)
DATA_SAMPLERS = _child(
    mmengine_registry.DATA_SAMPLERS,
    "negvision.detection.negative_sampler",
    "negvision.engine.class_balance",
    "negvision.face.datasets",
)
TRANSFORMS = _child(
    mmengine_registry.TRANSFORMS,
    "negvision.data.images.loading",
    "negvision.data.images.flips",
    "negvision.detection.datasets",
    "negvision.detection.transforms",
    "negvision.face.datasets",
    "negvision.classification.transforms",
    *_with_mmseg("negvision.segmentation.datasets"),
)
MODELS = _child(
    mmengine_registry.MODELS,
    "negvision.classification.efficientnet_lite",
    "negvision.detection.heads",
    "negvision.detection.losses",
    "negvision.engine.dice_loss",
    "negvision.face.backbones",
    "negvision.face.margins",
    "negvision.face.losses",
    "negvision.face.recognizer",
    "negvision.classification.resnet_cifar",
    "negvision.classification.classifier",
    "negvision.inference.exported_network",
    *_with_mmseg("negvision.segmentation.segmentors"),
)
TASK_UTILS = _child(
    mmengine_registry.TASK_UTILS,
    "negvision.detection.assigners",
    "negvision.detection.prediction_assigners",
)
METRICS = _child(
    mmengine_registry.METRICS,
    "negvision.detection.metrics",
    "negvision.face.metrics",
    "negvision.classification.accuracy_metric",
    "negvision.classification.ood_image_metric",
    *_with_mmseg("negvision.segmentation.metrics"),
)
MODEL_WRAPPERS = _child(
    mmengine_registry.MODEL_WRAPPERS, "negvision.engine.parallel.model_wrappers"
)
OPTIM_WRAPPERS = _child(mmengine_registry.OPTIM_WRAPPERS, "negvision.engine.optim")
LOOPS = _child(mmengine_registry.LOOPS, "negvision.engine.loops")
HOOKS = _child(
    mmengine_registry.HOOKS,
    "negvision.engine.progress_hook",
    "negvision.engine.bad_sample_hook",
    "negvision.engine.class_check_hook",
    "negvision.engine.metric_names_hook",
    "negvision.engine.memory_format",
    "negvision.engine.pruning",
    "negvision.engine.checkpoints.saving",
    "negvision.engine.interruption",
    "negvision.engine.loss_guard",
    "negvision.audit.sample_history_hook",
    "negvision.detection.prediction_hooks",
    "negvision.detection.score_threshold_hook",
    "negvision.detection.soft_negatives",
    "negvision.detection.assignment_counts",
    "negvision.detection.assignment_view",
    "negvision.inference.tiled_evaluation",
    "negvision.face.mean_center_hook",
    "negvision.face.pair_score_hook",
    *_with_mmseg("negvision.segmentation.ood_map_hook"),
)
