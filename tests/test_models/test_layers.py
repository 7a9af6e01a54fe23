import pytest
import torch
from torch import nn

from lale_mmseg.models.layers import RMSNorm2d, StarReLU


def test_rms_norm_follows_its_formula_at_every_pixel():
    norm = RMSNorm2d(5, eps=1e-6)
    nn.init.uniform_(norm.weight)
    x = torch.randn(2, 5, 3, 4)
    expected = x / (x.square().mean(dim=1, keepdim=True) + 1e-6).sqrt() * norm.weight[:, None, None]
    torch.testing.assert_close(norm(x), expected)


def test_rms_norm_by_hand():
    # Channels 3 and 4: mean square 12.5, root 3.5355; 3 / 3.5355 = 0.8485, 4 / 3.5355 = 1.1314.
    x = torch.tensor([3.0, 4.0]).reshape(1, 2, 1, 1)
    torch.testing.assert_close(RMSNorm2d(2)(x).flatten(), torch.tensor([0.848528, 1.131371]))


def test_star_relu_by_hand_and_learns_its_scalars():
    act = StarReLU(scale=2.0, bias=-1.0)
    y = act(torch.tensor([-3.0, 0.0, 1.0, 3.0]))
    torch.testing.assert_close(y, torch.tensor([-1.0, -1.0, 1.0, 17.0]))
    y.sum().backward()
    assert act.scale.grad.item() == pytest.approx(10.0)  # 1 + 9
    assert act.bias.grad.item() == pytest.approx(4.0)


def test_star_relu_start_values_give_zero_mean_and_unit_variance():
    y = StarReLU()(torch.randn(400_000, generator=torch.Generator().manual_seed(0)))
    assert abs(y.mean().item()) < 0.01
    assert abs(y.var().item() - 1) < 0.02
