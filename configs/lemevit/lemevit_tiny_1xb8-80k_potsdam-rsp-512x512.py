# LeMeViT-tiny with UPerNet on ISPRS Potsdam under protocol C with the paper's recipe; `clean=True` validates on a
# training tile.
_base_ = [
    '../_base_/models/lemevit_upernet.py',
    '../_base_/datasets/potsdam_rsp.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/schedule_lemevit_80k.py',
]
model = dict(test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(384, 384)))
