"""Boundary relaxation and the binary loss of edges."""

import numpy as np
import pytest
import torch
from mmseg.registry import MODELS

from lale_mmseg.errors import ConfigError
from lale_mmseg.models.losses import binary_edge_loss, boundary_relaxation_loss


def row() -> tuple[torch.Tensor, torch.Tensor]:
    """Three pixels, two classes; probabilities of class 0 are 0.8, 0.4, 1; labels 0, 1 and one ignored."""
    first = torch.tensor([4.0, 2.0 / 3.0, 1e30]).log()
    return torch.stack([first, torch.zeros(3)]).reshape(1, 2, 1, 3), torch.tensor([[[0, 1, 255]]])


def test_boundary_relaxation_by_hand():
    """The windows of both labelled pixels hold both, and nothing else that is labelled: 2 of 25 pixels.

    t = 1 / 25 = 0.04, 0.04; p = (0.8 + 0.4) / 25 = 0.048, 0.8 / 25 = 0.032. Terms: 0.04 ln(0.04 / 0.048) = -0.00729286,
    0.04 ln(0.04 / 0.032) = 0.00892574. Weights 2 - 0.5 = 1.5: 1.5 * 0.00163288 = 0.00244932 in each pixel, and on
    average. Weights 1 and 3: -0.00729286 + 3 * 0.00892574 = 0.01948437.
    """
    logits, labels = row()
    assert boundary_relaxation_loss(logits, labels).item() == pytest.approx(0.00244932, abs=1e-7)
    weighted = boundary_relaxation_loss(logits, labels, class_weight=torch.tensor([1.0, 3.0]))
    assert weighted.item() == pytest.approx(0.01948437, abs=1e-7)


def naive(logits: np.ndarray, labels: np.ndarray, window: int, eps: float = 1e-14) -> float:
    """The definition, pixel by pixel, with weights of the batch."""
    exps = np.exp(logits)
    p = exps / exps.sum(axis=1, keepdims=True)
    frequency = np.array([(labels == c).sum() for c in range(logits.shape[1])]) / (labels != 255).sum()
    total, half = 0.0, window // 2
    for image, y, x in zip(*np.nonzero(labels != 255), strict=True):
        around = np.s_[image, max(0, y - half) : y + half + 1, max(0, x - half) : x + half + 1]
        known = labels[around] != 255
        for c in range(logits.shape[1]):
            share = (labels[around] == c).sum() / window**2
            found = p[:, c][around][known].sum() / window**2
            total += (2 - frequency[c]) * share * (np.log(share + eps) - np.log(found + eps))
    return total / (labels != 255).sum()


@pytest.mark.parametrize('window', [1, 5])
def test_boundary_relaxation_is_its_definition(window):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 4, 7, 9))
    labels = rng.integers(0, 3, (2, 7, 9))  # the fourth class has no label
    labels[rng.random(labels.shape) < 0.2] = 255
    labels[0, :4, :5] = 255  # windows with nothing labelled
    found = boundary_relaxation_loss(torch.tensor(logits).float(), torch.tensor(labels), window=window)
    assert found.item() == pytest.approx(naive(logits, labels, window), rel=1e-5)


def test_exact_predictions_cost_nothing_and_confident_wrong_ones_are_finite():
    labels = torch.randint(0, 3, (2, 8, 8))
    right = 50.0 * torch.nn.functional.one_hot(labels, 3).permute(0, 3, 1, 2).float()
    assert boundary_relaxation_loss(right, labels).item() == pytest.approx(0, abs=1e-5)
    wrong = (-1000 * right).requires_grad_()
    loss = boundary_relaxation_loss(wrong, labels)
    loss.backward()
    assert loss.isfinite()
    assert wrong.grad.isfinite().all()


@pytest.mark.parametrize('loss', [boundary_relaxation_loss, binary_edge_loss])
def test_all_ignored_gives_zero_and_a_gradient(loss):
    logits = torch.randn(1, 1 if loss is binary_edge_loss else 3, 6, 6, requires_grad=True)
    value = loss(logits, torch.full((1, 6, 6), 255))
    value.backward()
    assert value.item() == 0.0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_half_precision_is_computed_in_float32():
    logits, labels = torch.randn(1, 3, 32, 32).bfloat16(), torch.randint(0, 3, (1, 32, 32))
    found = boundary_relaxation_loss(logits, labels)
    assert found.dtype == torch.float32
    assert torch.equal(found, boundary_relaxation_loss(logits.float(), labels))


def test_module_scales_the_loss_and_checks_its_inputs():
    loss = MODELS.build(dict(type='BoundaryRelaxationLoss', class_weight=[1.0, 3.0], loss_weight=2.0))
    logits, labels = row()
    assert loss(logits, labels).item() == pytest.approx(2 * 0.01948437, abs=1e-7)
    assert loss.loss_name == 'loss_body'
    with pytest.raises(ConfigError, match='not support pixel weights'):
        loss(logits, labels, weight=torch.ones(1, 1, 3))
    with pytest.raises(ConfigError, match='class_weight has 2 entries for 3 classes'):
        loss(torch.zeros(1, 3, 1, 3), labels)
    with pytest.raises(ConfigError, match=r"class_weight='data' requires LALERunner"):
        MODELS.build(dict(type='BoundaryRelaxationLoss', class_weight='data'))(logits, labels)


@pytest.mark.parametrize(
    ('cfg', 'message'),
    [
        (dict(type='BoundaryRelaxationLoss', window=4), 'window=4: expected an odd number'),
        (dict(type='BoundaryRelaxationLoss', class_weight='date'), "class_weight='date'"),
        (dict(type='BinaryEdgeLoss', pos_weight=0), 'pos_weight=0'),
    ],
)
def test_invalid_arguments(cfg, message):
    with pytest.raises(ConfigError, match=message):
        MODELS.build(cfg)


def test_binary_edge_loss_by_hand():
    """Logits ln 3, 0, 7 of an edge, no edge, an ignored pixel: -ln 0.75 = 0.287682, -ln 0.5 = 0.693147; mean 0.490415.

    Edges three times: (3 * 0.287682 + 0.693147) / 2 = 0.778096.
    """
    logits = torch.tensor([[[[3.0, 1.0, 1096.63]]]]).log()
    targets = torch.tensor([[[1, 0, 255]]])
    assert binary_edge_loss(logits, targets).item() == pytest.approx(0.490415, abs=1e-6)
    loss = MODELS.build(dict(type='BinaryEdgeLoss', pos_weight=3.0, loss_weight=0.5))
    assert loss(logits, targets, ignore_index=255).item() == pytest.approx(0.5 * 0.778096, abs=1e-6)
