_base_ = './lrformer_mask2former.py'
model = dict(backbone=dict(arch='l'), decode_head=dict(in_channels=[96, 192, 480, 640]))
