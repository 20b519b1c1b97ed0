# "RetinaNet (#A=1) + ATSS" of the paper's table 3, AP 39.3. This is ATSS itself, under the name
# that it has beside retinanet_r50_one_anchor.py.
_base_ = "../atss_r50.py"
