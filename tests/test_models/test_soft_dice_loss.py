import pytest
import segmentation_models_pytorch as smp
import torch
from mmseg.registry import MODELS

from lale_mmseg.models.losses import soft_dice_loss


def test_by_hand():
    """One row of three pixels, two classes, the last pixel ignored.

    Probabilities of class 0: 0.8, 0.4 (logit differences ln 4 and ln 2/3); labels 0, 1.
    Class 0: 2 * 0.8 / (0.8 + 0.4 + 1) = 0.727273; class 1: 2 * 0.6 / (0.2 + 0.6 + 1) = 0.666667.
    Loss: 1 - mean = 1 - 0.696970 = 0.303030.
    """
    zeros = torch.zeros(3)
    first = torch.tensor([4.0, 2.0 / 3.0, 1000.0]).log()
    logits = torch.stack([first, zeros]).reshape(1, 2, 1, 3)
    loss = soft_dice_loss(logits, torch.tensor([[[0, 1, 255]]]))
    assert loss.item() == pytest.approx(0.303030, abs=1e-6)


def test_classes_that_no_label_has_are_left_out():
    logits = torch.full((1, 3, 2, 2), -20.0)
    logits[:, 1] = 20.0
    labels = torch.ones(1, 2, 2, dtype=torch.long)
    assert soft_dice_loss(logits, labels).item() == pytest.approx(0.0, abs=1e-6)


def test_small_classes_count_as_much_as_large_ones():
    """99 pixels of class 0 right, 1 pixel of class 1 missed: class 0 has Dice 198 / 199, class 1 has 0."""
    logits = torch.zeros(1, 2, 10, 10)
    logits[:, 0] = 40.0
    labels = torch.zeros(1, 10, 10, dtype=torch.long)
    labels[0, 0, 0] = 1
    assert soft_dice_loss(logits, labels).item() == pytest.approx(1 - (198 / 199) / 2, abs=1e-5)
    weighted = soft_dice_loss(logits, labels, class_weight=torch.tensor([1.0, 3.0]))
    assert weighted.item() == pytest.approx(1 - (198 / 199) / 4, abs=1e-5)


def test_all_ignored_gives_zero_and_a_gradient():
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = soft_dice_loss(logits, torch.full((1, 4, 4), 255))
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_binary_with_one_channel_ignores_pixels():
    """Probability 0.5 at a pixel of label 1, one ignored: 1 - 2 * 0.5 / (0.5 + 1) = 1/3."""
    loss = soft_dice_loss(torch.zeros(1, 1, 1, 2), torch.tensor([[[1, 255]]]))
    assert loss.item() == pytest.approx(1 / 3, abs=1e-6)


def test_equals_segmentation_models_pytorch_where_no_class_is_ignored():
    logits, labels = torch.randn(3, 5, 17, 19), torch.randint(0, 4, (3, 17, 19))
    # Theirs averages over absent classes (loss 0 there), too.
    theirs = smp.losses.DiceLoss(mode='multiclass', eps=1e-7)(logits, labels).item() * 5 / 4
    assert soft_dice_loss(logits, labels).item() == pytest.approx(theirs, abs=1e-5)


def test_module_scales_and_rejects_pixel_weights():
    loss = MODELS.build(dict(type='SoftDiceLoss', loss_weight=0.5))
    logits, labels = torch.randn(1, 3, 4, 4), torch.randint(0, 3, (1, 4, 4))
    assert loss(logits, labels).item() == pytest.approx(0.5 * soft_dice_loss(logits, labels).item())
    assert loss.loss_name == 'loss_dice'
    with pytest.raises(ValueError, match='not support pixel weights'):
        loss(logits, labels, weight=torch.ones(1, 4, 4))
