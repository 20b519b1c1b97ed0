# ATSS on 128 photos of COCO, from scratch, evaluated with the 80 categories. It shows that real
# COCO files go all the way through; an AP near zero on the 128 other photos is what to expect.
_base_ = [
    "../_base_/models/atss_r18_slim.py",
    "../_base_/datasets/coco128_detection.py",
    "../_base_/schedules/schedule_slim.py",
    "../_base_/iteration_runtime.py",
]

# Objects of COCO range from a few pixels to the full image: one level more.
model = dict(
    neck=dict(add_extra_convs="on_output", num_outs=4),
    bbox_head=dict(anchor_generator=dict(strides=[8, 16, 32, 64])),
)
