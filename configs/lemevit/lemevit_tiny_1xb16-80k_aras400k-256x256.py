# LeMeViT-tiny with UPerNet on the real part of ARAS400k with the paper's recipe for Potsdam.
_base_ = [
    '../_base_/models/lemevit_upernet.py',
    '../_base_/datasets/aras400k.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/schedule_lemevit_80k.py',
]
model = dict(data_preprocessor=dict(size=(256, 256)))
train_dataloader = dict(batch_size=16, sampler=dict(_delete_=True, type='InfiniteSampler', shuffle=True))
