# Plain CosFace, IResNet-100, MS1MV2.
_base_ = "./ms1mv2_r100_arcface.py"

model = dict(head=dict(margin=dict(_delete_=True, type="negvision.CosFaceMargin", m=0.5)))
