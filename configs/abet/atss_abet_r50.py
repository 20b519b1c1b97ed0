# ATSS with OOD scores, VOC against COCO: boxes assigned by ATSS, scored by AbeT's idea on sigmoids
# (see negvision.AbeTATSSHead; the paper has softmax heads only).
_base_ = [
    "../_base_/models/atss_r50_fpn.py",
    "../_base_/datasets/voc_coco_ood.py",
    "../_base_/schedules/schedule_voc_18k.py",
    "../_base_/iteration_runtime.py",
]

model = dict(bbox_head=dict(type="negvision.AbeTATSSHead", num_classes=20))

# The learning rate of ATSS for 16 images per batch, scaled to 4.
optim_wrapper = dict(optimizer=dict(lr=0.0025))
