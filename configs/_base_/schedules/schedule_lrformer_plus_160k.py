# The recipe of LRFormer+ (arXiv 2310.05026): AdamW at 1e-4, a tenth of that in the backbone, gradients clipped at 0.01,
# no decay on norms and embeddings. What the paper leaves open is listed in configs/lrformer_plus/README.md.
_base_ = './schedule_160k.py'
optim_wrapper = dict(
    optimizer=dict(lr=1e-4, weight_decay=0.05),
    clip_grad=dict(max_norm=0.01),
    constructor='GroupedOptimWrapperConstructor',
    paramwise_cfg=dict(norm_decay_mult=0.0, embedding_decay_mult=0.0, custom_keys={'backbone': dict(lr_mult=0.1)}),
)
