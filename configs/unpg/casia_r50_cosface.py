# Plain CosFace, IResNet-50, CASIA-WebFace.
_base_ = "./casia_r50_arcface.py"

model = dict(head=dict(margin=dict(_delete_=True, type="negvision.CosFaceMargin", m=0.5)))
