# Without spatial fusion (SFM): body and edge are added.
_base_ = './ued-bes-sfm_x10_1xb8-onecycle-400_palette-256x256.py'
model = dict(decode_head=dict(spatial_fusion=False))
