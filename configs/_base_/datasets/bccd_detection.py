# Blood cells under a microscope: 205 training images of 640 x 480, here at half the size.
# Many red cells have no box in the source, so metrics of RBC are bounded by the labels.
_base_ = "./small_detection.py"

data_root = "{{$NEGVISION_DATA:data}}/bccd/"
resize = dict(type="Resize", scale=(320, 240), keep_ratio=True)
directions = ["horizontal", "vertical", "diagonal"]
train_pipeline = [
    *_base_.load,
    resize,
    # Cells have no upright position.
    dict(type="RandomFlip", prob=[0.25, 0.25, 0.25], direction=directions),
    dict(type="negvision.PackDetInputs"),
]
test_pipeline = [_base_.load[0], resize, _base_.load[1], _base_.pack]

images = dict(data_root=data_root, data_prefix=dict(img="images/"))
train_dataloader = dict(
    dataset=dict(ann_file="annotations/train.json", pipeline=train_pipeline, **images)
)
val_dataloader = dict(
    dataset=dict(ann_file="annotations/val.json", pipeline=test_pipeline, **images)
)
test_dataloader = dict(
    dataset=dict(ann_file="annotations/test.json", pipeline=test_pipeline, **images)
)

val_evaluator = dict(ann_file=data_root + "annotations/val.json")
test_evaluator = dict(ann_file=data_root + "annotations/test.json")
