_base_ = './lrformer.py'
model = dict(backbone=dict(arch='s'), decode_head=dict(in_channels=[128, 320, 512], channels=384))
