# Image encoder of Segment Anything, trained by LoRA (arXiv 2106.09685) alone, with a convolutional decoder.
_base_ = './sam_conv.py'
model = dict(backbone=dict(lora_cfg=dict(rank=4, alpha=4, targets=('qkv',), dropout=0.0)))
