# LALE-S1 with the few-shot recipe of roofs: 0.5 BCE + 0.5 Dice of building (cross-entropy over two classes is BCE of
# the difference of their logits), dropout 0.3 before the classifier; images of any size.
_base_ = './lale.py'
model = dict(
    data_preprocessor=dict(size=None, size_divisor=32),
    decode_head=dict(
        dropout_ratio=0.3,
        loss_decode=[
            dict(type='CrossEntropyLoss', avg_non_ignore=True, loss_weight=0.5, loss_name='loss_bce'),
            dict(type='SoftDiceLoss', class_weight=[0.0, 1.0], loss_weight=0.5),
        ],
    ),
)
