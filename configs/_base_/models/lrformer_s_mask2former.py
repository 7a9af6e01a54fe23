_base_ = './lrformer_mask2former.py'
model = dict(backbone=dict(arch='s'), decode_head=dict(in_channels=[64, 128, 320, 512]))
