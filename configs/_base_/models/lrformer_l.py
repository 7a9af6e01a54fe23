_base_ = './lrformer.py'
model = dict(backbone=dict(arch='l'), decode_head=dict(in_channels=[192, 480, 640], channels=640))
