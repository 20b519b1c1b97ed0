# The playing cards of cards_detection.py, and 75 photos of the held-out queen and ten to test on.
_base_ = "./cards_detection.py"

meta_keys = (*_base_.pack.meta_keys, "is_ood")
test_pipeline = [
    *_base_.test_pipeline[:-1],
    dict(type="negvision.PackDetInputs", meta_keys=meta_keys),
]
test_files = dict(test_mode=True, pipeline=test_pipeline, **_base_.files)
known = dict(type="negvision.CocoDataset", ann_file="annotations/test_id.json", **test_files)
unknown = dict(type="negvision.OODCocoDataset", ann_file="annotations/test_ood.json", **test_files)
val_dataloader = dict(dataset=dict(_delete_=True, type="ConcatDataset", datasets=[known, unknown]))
test_dataloader = val_dataloader

val_evaluator = dict(
    type="negvision.OODBoxMetric",
    # All cards are large by COCO's limits; these divide them into thirds.
    area_limits=(132.0**2, 160.0**2),
    ood_ann_file=_base_.data_root + "annotations/test_ood.json",
)
test_evaluator = val_evaluator
