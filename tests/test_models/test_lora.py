"""Low-rank updates of linear layers."""

import pytest
import torch
from torch import nn

from lale_mmseg.errors import ConfigError
from lale_mmseg.models.layers import LoRALinear, add_lora, merge_lora


def network() -> nn.Sequential:
    block = nn.ModuleDict(dict(qkv=nn.Linear(6, 18), proj=nn.Linear(6, 6, bias=False), norm=nn.LayerNorm(6)))
    return nn.Sequential(block, nn.Linear(6, 2))


def test_by_hand():
    """W = [1 2], b = 3, A = [1 -1], B = [2], rank 1, alpha 0.5: x = [4 1] gives 6 + 3 + 0.5 * 2 * 3 = 12."""
    layer = LoRALinear(2, 1, rank=1, alpha=0.5)
    for parameter, value in (
        (layer.weight, [[1.0, 2]]), (layer.bias, [3.0]), (layer.lora_a, [[1.0, -1]]), (layer.lora_b, [[2.0]])
    ):  # fmt: skip
        parameter.data = torch.tensor(value)
    assert layer(torch.tensor([[4.0, 1]])).tolist() == [[12.0]]
    merged = layer.merge()
    assert merged.weight.tolist() == [[2.0, 1.0]]  # 1 + 0.5 * 2, 2 - 0.5 * 2
    assert merged.bias.tolist() == [3.0]


def test_it_starts_as_the_plain_layer_learns_and_merges():
    plain, adapted, x = network(), network(), torch.randn(5, 6)
    (layer,) = add_lora(adapted, rank=2)
    assert adapted.load_state_dict(plain.state_dict(), strict=False).unexpected_keys == []
    assert torch.equal(layer(x), plain[0]['qkv'](x))  # B is zero at first
    trained = {name: tuple(p.shape) for name, p in adapted.named_parameters() if p.requires_grad}
    assert trained == {'0.qkv.lora_a': (2, 6), '0.qkv.lora_b': (18, 2)}
    before = layer.weight.clone()
    optimizer = torch.optim.SGD([p for p in adapted.parameters() if p.requires_grad], lr=0.5)
    start = layer(x)
    for step in range(2):
        optimizer.zero_grad()
        layer(x).square().sum().backward()
        assert layer.lora_b.grad.abs().max() > 0
        assert (layer.lora_a.grad.abs().max() > 0) == (step > 0)
        optimizer.step()
    assert torch.equal(layer.weight, before)
    expected = layer(x)
    assert (expected - start).abs().max() > 0.01
    assert merge_lora(adapted) == 1
    assert type(adapted[0]['qkv']) is nn.Linear
    torch.testing.assert_close(adapted[0]['qkv'](x), expected)


def test_dropout_applies_to_the_update_alone():
    layer, x = LoRALinear(64, 64, rank=8, dropout=0.5), torch.randn(3, 64)
    nn.init.normal_(layer.lora_b)
    assert not torch.equal(layer(x), layer(x))
    nn.init.zeros_(layer.lora_b)
    assert torch.equal(layer(x), nn.functional.linear(x, layer.weight, layer.bias))


@pytest.mark.parametrize('targets', [('qvk',), ()])
def test_targets_are_names_of_linear_layers(targets):
    with pytest.raises(ConfigError, match=r'lora_cfg\.targets=.*: expected a list of names out of 1, proj, qkv'):
        add_lora(network(), targets=targets)
