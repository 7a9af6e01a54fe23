# The light body/edge network (UED, BES and SFM) on your own images in 400 iterations; see docs/own_data.md.
_base_ = [
    '../_base_/models/body_edge.py',
    '../_base_/datasets/palette_edges.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/schedule_onecycle_400.py',
]
model = dict(data_preprocessor=dict(size=(256, 256)))
