# AbeT on CamVid without people: otherwise as camvid_deeplabv3plus.py.
_base_ = "./camvid_deeplabv3plus.py"

model = dict(type="negvision.AbeTEncoderDecoder", score="abet")
