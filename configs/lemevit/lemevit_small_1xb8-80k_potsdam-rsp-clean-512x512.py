# LeMeViT-small with UPerNet on ISPRS Potsdam with the paper's recipe, under protocol C with a training tile for
# validation.
_base_ = [
    '../_base_/models/lemevit_small_upernet.py',
    '../_base_/datasets/potsdam_rsp_clean.py',
    '../_base_/default_runtime.py',
    '../_base_/schedules/schedule_lemevit_80k.py',
]
model = dict(test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(384, 384)))
