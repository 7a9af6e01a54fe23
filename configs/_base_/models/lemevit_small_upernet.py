_base_ = './lemevit_upernet.py'
model = dict(
    backbone=dict(arch='small'), decode_head=dict(in_channels=[96, 192, 320, 384]), auxiliary_head=dict(in_channels=320)
)
