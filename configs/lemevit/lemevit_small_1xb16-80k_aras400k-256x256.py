# LeMeViT-small with UPerNet on the real part of ARAS400k with the paper's recipe for Potsdam.
_base_ = [
    '../_base_/models/lemevit_small_upernet.py',
    '../_base_/datasets/aras400k_iterations.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/schedule_lemevit_80k.py',
]
model = dict(data_preprocessor=dict(size=(256, 256)))
