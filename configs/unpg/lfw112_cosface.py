# Plain CosFace on a part of LFW, on two CPU cores.
_base_ = "./lfw112_arcface.py"

model = dict(head=dict(margin=dict(_delete_=True, type="negvision.CosFaceMargin", m=0.35)))
