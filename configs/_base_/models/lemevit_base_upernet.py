_base_ = './lemevit_upernet.py'
model = dict(
    backbone=dict(arch='base'), decode_head=dict(in_channels=[96, 192, 384, 512]), auxiliary_head=dict(in_channels=384)
)
