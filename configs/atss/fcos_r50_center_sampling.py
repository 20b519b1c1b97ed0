# FCOS with positives near the centers of boxes only: AP 38.6 in table 3 of the paper.
_base_ = "./fcos_r50.py"

model = dict(bbox_head=dict(center_sampling=True, center_sample_radius=1.5))
