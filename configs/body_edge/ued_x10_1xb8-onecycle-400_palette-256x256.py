# The encoder and decoder alone (UED).
_base_ = './ued-bes-sfm_x10_1xb8-onecycle-400_palette-256x256.py'
model = dict(decode_head=dict(separate_body_edge=False, spatial_fusion=False))
