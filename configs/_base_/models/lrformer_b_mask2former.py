_base_ = './lrformer_mask2former.py'
model = dict(backbone=dict(arch='b'), decode_head=dict(in_channels=[80, 160, 400, 512]))
