# The recipe of the LRFormer paper (arXiv 2310.05026): AdamW at 6e-5, ten times that in the head, no decay on norms.
_base_ = './schedule_160k.py'
optim_wrapper = dict(
    optimizer=dict(lr=6e-5),
    clip_grad=dict(max_norm=35.0),
    constructor='GroupedOptimWrapperConstructor',
    paramwise_cfg=dict(norm_decay_mult=0.0, custom_keys={'decode_head': dict(lr_mult=10.0)}),
)
