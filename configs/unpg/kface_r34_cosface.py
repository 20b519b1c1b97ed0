# Plain CosFace, IResNet-34, K-FACE.
_base_ = "./kface_r34_arcface.py"

model = dict(head=dict(margin=dict(_delete_=True, type="negvision.CosFaceMargin", m=0.5)))
