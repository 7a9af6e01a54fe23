import math
import subprocess
import sys
import types

import pytest
import torch
from mmseg.registry import MODELS

from lale_mmseg import compat


def run_python(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)


def test_mmdet_models_import_without_compiled_operations_and_print_nothing():
    done = run_python('import lale_mmseg.register, mmdet.models; mmdet.models.Mask2FormerHead')
    assert (done.returncode, done.stdout) == (0, ''), done.stderr  # mmseg's advertisement is not printed


@pytest.mark.skipif(compat.has_compiled_ops(), reason='mmcv has its compiled operations here')
def test_a_missing_operation_is_named_when_it_is_called():
    from mmcv.ops import RoIPool

    with pytest.raises(RuntimeError, match=r'without its compiled operations.*roi_pool_forward.*MMCV_WITH_OPS=1'):
        RoIPool(2)(torch.zeros(1, 1, 4, 4), torch.tensor([[0.0, 0.0, 0.0, 3.0, 3.0]]))


def test_deformable_attention_takes_its_grid_sample_form():
    from mmcv.ops import MultiScaleDeformableAttention

    attention = MultiScaleDeformableAttention(embed_dims=32, num_heads=4, num_levels=1, batch_first=True)
    value = torch.randn(1, 16, 32)
    shapes, starts = torch.tensor([[4, 4]]), torch.tensor([0])
    points = torch.rand(1, 16, 1, 2)
    out = attention(value, value=value, reference_points=points, spatial_shapes=shapes, level_start_index=starts)
    assert out.shape == (1, 16, 32)
    assert out.isfinite().all()


def test_compiled_operations_are_left_alone(monkeypatch):
    compiled = types.ModuleType('mmcv._ext')
    monkeypatch.setitem(sys.modules, 'mmcv._ext', compiled)
    assert compat.has_compiled_ops()
    compat.apply()
    assert sys.modules['mmcv._ext'] is compiled


def test_old_modules_are_named_with_package_and_version(monkeypatch):
    import mmcv

    monkeypatch.setattr(mmcv, '__version__', '2.0.1')
    with pytest.raises(ImportError, match=r'mmcv 2\.0\.1 is too old: lale_mmseg needs onedl-mmcv \(or mmcv\) >= 2\.1'):
        compat.check_versions()


def test_a_missing_module_is_named(monkeypatch):
    monkeypatch.setitem(compat.REQUIRED, 'no_such_module', ('1.0', 'some-package'))
    with pytest.raises(ImportError, match=r'no_such_module is not installed: lale_mmseg needs some-package >= 1.0'):
        compat.check_versions()


def test_mixed_precision_works_on_a_cpu_and_rejects_fp16_there():
    model = torch.nn.Linear(4, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    wrapper = compat.AnyDeviceAmpOptimWrapper(dtype='bfloat16', optimizer=optimizer, clip_grad=dict(max_norm=1.0))
    before = model.weight.detach().clone()
    with wrapper.optim_context(model):
        out = model(torch.randn(2, 4))
    assert out.dtype == torch.bfloat16
    wrapper.update_params(out.float().square().mean())
    assert not torch.equal(model.weight, before)
    if compat.is_cpu_only():
        with pytest.raises(ValueError, match="dtype='float16' needs a GPU"):
            compat.AnyDeviceAmpOptimWrapper(dtype='float16', optimizer=optimizer)


def test_class_weights_are_a_weighted_mean_over_the_labelled_pixels():
    """Three pixels with probabilities 0.8 and 0.5 of their class, the third ignored; class 1 weighs three times."""
    logits = torch.tensor([[[[math.log(4), 0.0, 9.0]], [[0.0, 0.0, 0.0]]]])
    labels = torch.tensor([[[0, 1, 255]]])
    for weights, expected in (
        (None, -(math.log(0.8) + math.log(0.5)) / 2),
        ([1.0, 3.0], -(math.log(0.8) + 3 * math.log(0.5)) / 4),
    ):
        loss = MODELS.build(dict(type='CrossEntropyLoss', avg_non_ignore=True, class_weight=weights))
        assert loss(logits, labels, ignore_index=255).item() == pytest.approx(expected)
        assert loss(logits, torch.full_like(labels, 255), ignore_index=255).item() == 0
