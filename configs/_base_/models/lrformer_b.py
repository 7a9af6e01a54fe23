_base_ = './lrformer.py'
model = dict(backbone=dict(arch='b'), decode_head=dict(in_channels=[160, 400, 512], channels=512))
