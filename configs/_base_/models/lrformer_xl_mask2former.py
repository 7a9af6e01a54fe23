_base_ = './lrformer_mask2former.py'
model = dict(backbone=dict(arch='xl'), decode_head=dict(in_channels=[128, 256, 640, 768]))
