"""Converters of published checkpoints, on made-up ones with the published names and shapes."""

import argparse
import importlib
import json
import os

import pytest
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmseg.registry import MODELS

from lale_mmseg.engine.checkpoint import load_weights, read_checkpoint
from lale_mmseg.engine.pretrained import load_pretrained_parts, take_pretrained_parts
from lale_mmseg.errors import CheckpointError, ConfigError
from tests.published import BACKBONES, facts, parameters_in, published_state
from tests.support import REPO, run_tool
from tools.model_converters import lemevit, lrformer

# The scripts put tools/ on the path and import the shared module from there.
_convert = importlib.import_module('model_converters._convert')
FAMILIES = {'lrformer': lrformer.FAMILY, 'lemevit': lemevit.FAMILY}
PREFIXES = ('', 'module.', 'backbone.', 'module.backbone.', 'backbone.module.')
#: Entry that is reported, and how it lies in the file.
WRAPPINGS = {
    '': lambda state: state,
    'model': lambda state: {'model': state, 'epoch': 3},
    'state_dict': lambda state: {'state_dict': state, 'meta': {}},
    'state_dict_ema': lambda state: {'state_dict': {'other': torch.zeros(1)}, 'state_dict_ema': state},
    'model.state_dict': lambda state: {'model': {'state_dict': state}, 'optimizer': {'lr': 0.1}},
}


def family_of(name: str):
    return FAMILIES[name.partition('_')[0]]


def renamed(state: dict, prefix: str) -> dict:
    return {prefix + name: value for name, value in state.items()}


def segmentor(name: str, head: dict, device: str = 'meta') -> dict:
    """A published segmentor: a backbone, and a head with names as given."""
    return {**renamed(published_state(name, device), 'backbone.'), **head}


def lr_head(device: str = 'meta') -> dict:
    return renamed(published_state('lrhead_t', device), 'decode_head.')


def convert_file(family, *words) -> None:
    _convert.run_converter(family, _convert.parse_args(family, [str(word) for word in words]))


@pytest.mark.parametrize('name', BACKBONES)
def test_every_published_size_is_recognised_and_filled_and_every_name_accounted_for(name):
    state = published_state(name, 'meta')
    result = _convert.convert(state, family_of(name))
    assert result.arch == name.partition('_')[2]
    assert result.missing == []
    assert result.reshaped == {}
    assert sorted([*result.used.values(), *result.unused]) == sorted(state)
    assert parameters_in(state) == facts(name)['params']
    with torch.device('meta'):
        model = MODELS.build(dict(type=family_of(name).backbone, arch=result.arch))
    assert set(result.state) == set(model.state_dict())
    dropped = parameters_in({theirs: state[theirs] for theirs in result.unused})
    assert sum(parameter.numel() for parameter in model.parameters()) == facts(name)['params'] - dropped


def test_nothing_of_lrformer_is_unused_and_of_lemevit_what_feeds_no_map():
    assert _convert.convert(published_state('lrformer_t', 'meta'), lrformer.FAMILY).unused == {}
    unused = _convert.convert(published_state('lemevit_tiny', 'meta'), lemevit.FAMILY).unused
    assert set(unused.values()) == {'feeds no feature map'}
    starts = {'.'.join(name.split('.')[:2]) for name in unused}
    assert starts - {'stages.2'} == {
        'meta_token_downsample.3', 'meta_token_downsample.4', 'norm_c.bias', 'norm_c.weight', *(
            f'norm.{part}' for part in ('weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked')
        )
    }  # fmt: skip
    assert {name for name in unused if name.startswith('stages')} == {
        'stages.2.1.attn.proj_c.weight', 'stages.2.1.attn.proj_c.bias'
    }  # fmt: skip


def test_tensors_reach_the_places_that_they_are_for():
    state = published_state('lrformer_t')
    result = _convert.convert(state, lrformer.FAMILY)
    for ours, theirs in {
        'downsamples.0.10.bias': 'patch_embed1.norm.bias',
        'downsamples.0.3.weight': 'patch_embed1.conv1.3.weight',
        'downsamples.2.0.weight': 'patch_embed3.proj.weight',
        'downsamples.2.1.weight': 'patch_embed3.norm.weight',
        'pyramids.1.refine.3.conv.weight': 'd_convs2.3.weight',
        'stages.2.5.scale1.weight': 'block3.5.layer_scale_1',
        'stages.3.0.attn.kv.bias': 'block4.0.attn.kv.0.bias',
    }.items():
        assert result.used[ours] == theirs
        assert torch.equal(result.state[ours], state[theirs])


@pytest.mark.parametrize('entry', WRAPPINGS)
@pytest.mark.parametrize('prefix', PREFIXES)
@pytest.mark.parametrize('name', ['lrformer_t', 'lemevit_tiny'])
def test_all_prefixes_and_entries_are_understood(name, prefix, entry):
    plain = published_state(name, 'meta')
    classifier = {'head.weight': torch.zeros(2, 2), 'classifier.bias': torch.zeros(2)}
    content = WRAPPINGS[entry](renamed({**plain, **classifier}, prefix))
    state, where, passed_over = _convert.find_state(content, 'x.pth')
    assert where == entry
    assert passed_over == (['state_dict'] if entry == 'state_dict_ema' else [])
    result = _convert.convert(state, family_of(name), 'x.pth')
    expected = _convert.convert(plain, family_of(name))
    assert result.used == {ours: prefix + theirs for ours, theirs in expected.used.items()}
    assert result.missing == []
    assert result.unused == {
        **{prefix + theirs: reason for theirs, reason in expected.unused.items()},
        f'{prefix}head.weight': 'classifier',
        f'{prefix}classifier.bias': 'classifier',
    }


def test_which_weights_of_several_can_be_chosen():
    content = {'state_dict': {'a': torch.zeros(1)}, 'state_dict_ema': {'b': torch.zeros(1)}}
    assert _convert.find_state(content, 'x.pth')[1:] == ('state_dict_ema', ['state_dict'])
    chosen, *rest = _convert.find_state(content, 'x.pth', 'state_dict')
    assert (list(chosen), rest) == (['a'], ['state_dict', ['state_dict_ema']])
    inside = {'model_ema': content, 'model': {'c': torch.zeros(1)}, 'state_dict': {'d': torch.zeros(1)}}
    assert _convert.find_state(inside, 'x.pth')[1:] == (
        'model_ema.state_dict_ema',
        ['state_dict', 'model', 'model_ema.state_dict'],
    )
    with pytest.raises(CheckpointError, match=r"x\.pth: no weights under 'model'; found 'state_dict_ema'"):
        _convert.find_state(content, 'x.pth', 'model')


def test_strangers_are_listed_as_unused():
    state = {**published_state('lemevit_tiny', 'meta'), 'epoch': 7, 'pos.weight': torch.zeros(1)}
    unused = _convert.convert(state, lemevit.FAMILY).unused
    assert (unused['epoch'], unused['pos.weight']) == ('no tensor', 'no such weight here')


def test_a_segmentor_with_lrhead_keeps_its_parts_and_loads_whole(tmp_path):
    torch.save({'state_dict': segmentor('lrformer_t', lr_head('cpu'), 'cpu')}, tmp_path / 'official.pth')
    convert_file(lrformer.FAMILY, tmp_path / 'official.pth', tmp_path / 'out.pth')
    state = read_checkpoint(tmp_path / 'out.pth')['state_dict']
    cfg = Config.fromfile(REPO / 'configs' / '_base_' / 'models' / 'lrformer.py')
    cfg.model.decode_head.num_classes = 150
    model = revert_sync_batchnorm(MODELS.build(cfg.model))
    load_weights(model, state, 'out.pth')  # as load_from does
    published = published_state('lrhead_t')['fuse_block2.attn.q.weight']
    assert published.shape == (256, 256, 1, 1)
    assert torch.equal(model.decode_head.fuse_block2.attn.q.weight, published[:, :, 0, 0])
    # And the backbone alone, as init_cfg does.
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'out.pth'), prefix='backbone.')
    alone = torch.nn.ModuleDict(dict(backbone=MODELS.build(dict(type='LRFormer', arch='t', init_cfg=init_cfg))))
    load_pretrained_parts(take_pretrained_parts(alone))
    for name, value in alone.backbone.state_dict().items():
        assert torch.equal(value, model.backbone.state_dict()[name])


def test_weights_of_lrhead_are_checked_too():
    head = lr_head()
    del head['decode_head.squeeze2.bn.bias']
    head['decode_head.fuse_block1.norm1.weight'] = torch.zeros(3)
    result = _convert.convert(segmentor('lrformer_t', head), lrformer.FAMILY)
    assert result.missing == ['decode_head.squeeze2.bn.bias']
    assert result.reshaped == {'decode_head.fuse_block1.norm1.weight': ((3,), (256,))}


def test_other_heads_keep_their_names():
    names = ('decode_head.conv_seg.weight', 'decode_head.psp_modules.0.1.conv.weight', 'auxiliary_head.convs.0.bn.bias')
    heads = {name: torch.ones(2) for name in names}
    for name in ('lemevit_tiny', 'lrformer_t'):
        result = _convert.convert(renamed(segmentor(name, heads), 'module.'), family_of(name))
        assert {ours: result.used[ours] for ours in names} == {ours: f'module.{ours}' for ours in names}
        assert {ours.partition('.')[0] for ours in result.state} == {'backbone', 'decode_head', 'auxiliary_head'}
        assert result.missing == []


def test_an_auxiliary_head_alone_makes_a_segmentor_too():
    result = _convert.convert(segmentor('lemevit_tiny', {'auxiliary_head.a': torch.ones(2)}), lemevit.FAMILY)
    assert {ours.partition('.')[0] for ours in result.state} == {'backbone', 'auxiliary_head'}


def test_missing_weights_are_an_error_and_counters_are_not():
    state = published_state('lemevit_tiny', 'meta')
    for name in ('stages.0.0.norm1.weight', 'stages.3.7.mlp.0.bias', 'downsample_layers.0.1.num_batches_tracked'):
        del state[name]
    result = _convert.convert(state, lemevit.FAMILY)
    assert result.arch == 'tiny'
    assert result.missing == ['stages.0.0.norm1.weight', 'stages.3.7.mlp.0.bias']
    with pytest.raises(
        CheckpointError, match=r'^x: 2 missing: stages\.0\.0\.norm1\.weight, stages\.3\.7\.mlp\.0\.bias$'
    ):
        result.check('x')


def test_other_shapes_are_an_error_that_names_the_first_five():
    state = published_state('lrformer_t', 'meta')
    for block in range(6):
        state[f'block3.{block}.norm1.bias'] = torch.zeros(2, block)
    result = _convert.convert(state, lrformer.FAMILY)
    with pytest.raises(CheckpointError) as info:
        result.check('x')
    shapes = '; '.join(f'stages.2.{block}.norm1.bias: found (2, {block}), expected (240,)' for block in range(5))
    assert str(info.value) == f'x: 6 of another shape: {shapes} and 1 more'


def test_a_size_that_is_not_the_given_one_is_named_by_its_shapes():
    result = _convert.convert(published_state('lrformer_s', 'meta'), lrformer.FAMILY, arch='T')
    with pytest.raises(
        CheckpointError, match=r'downsamples\.0\.0\.weight: found \(32, 3, 3, 3\), expected \(24, 3, 3,'
    ):
        result.check('x')


def test_unknown_sizes_are_named_with_the_known_ones():
    state = published_state('lrformer_t', 'meta')
    wide = {name: value.new_empty([3 * side for side in value.shape]) for name, value in state.items()}
    with pytest.raises(CheckpointError, match=r'x\.pth: the shapes are of no size of LRFormer; .* t, s, b, l, xl'):
        _convert.convert(wide, lrformer.FAMILY, 'x.pth')
    with pytest.raises(ConfigError, match=r'--arch huge: expected one of t, s, b, l, xl'):
        _convert.convert(state, lrformer.FAMILY, arch='huge')
    with pytest.raises(CheckpointError, match=r'x\.pth: no weights of LeMeViT; found names such as patch_embed1'):
        _convert.convert(state, lemevit.FAMILY, 'x.pth')


def test_two_names_of_one_weight_are_an_error():
    state = published_state('lemevit_tiny', 'meta')
    with pytest.raises(CheckpointError, match=r"'meta_tokens' and 'module\.meta_tokens' are the same weight"):
        _convert.convert({**state, 'module.meta_tokens': state['meta_tokens']}, lemevit.FAMILY)


@pytest.mark.parametrize(
    'content, message',
    [
        (b'', 'damaged or not a checkpoint'),
        (b'weights', 'damaged or not a checkpoint'),
        ([1, 2], 'holds a list'),
        ({'epoch': 1}, 'no weights; .* found the entries epoch'),
        ({'model': {}}, 'no weights; .* found the entries none'),
    ],
)
def test_what_is_no_checkpoint_is_named_and_nothing_written(tmp_path, content, message):
    path, out = tmp_path / 'x.pth', tmp_path / 'out.pth'
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(CheckpointError, match=rf'x\.pth: {message}'):
        convert_file(lemevit.FAMILY, path, out)
    assert not out.exists()


def test_truncated_and_incomplete_files_write_nothing(tmp_path):
    whole = published_state('lemevit_tiny')
    torch.save(whole, tmp_path / 'whole.pth')
    (tmp_path / 'cut.pth').write_bytes((tmp_path / 'whole.pth').read_bytes()[:100_000])
    del whole['stages.4.0.attn.qkv.bias']
    torch.save(whole, tmp_path / 'less.pth')
    out = tmp_path / 'out.pth'
    for name, message in (('cut', 'damaged or not'), ('less', r'does not match LeMeViT tiny: 1 missing: stages\.4\.0')):
        with pytest.raises(CheckpointError, match=rf'{name}\.pth: {message}'):
            convert_file(lemevit.FAMILY, tmp_path / f'{name}.pth', out, '--report', tmp_path / 'report.json')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['cut.pth', 'less.pth', 'whole.pth']


def test_the_input_is_not_written_over(tmp_path):
    torch.save({'a': torch.zeros(1)}, tmp_path / 'x.pth')
    with pytest.raises(ConfigError, match='is the input'):
        convert_file(lemevit.FAMILY, tmp_path / 'x.pth', tmp_path / 'x.pth')


def test_code_in_a_file_is_refused_and_training_options_are_not(tmp_path):
    class Bait:
        def __reduce__(self):
            return os.system, (f'touch {tmp_path / "executed"}',)

    torch.save({'model': {'a': torch.zeros(1)}, 'args': Bait()}, tmp_path / 'evil.pth')
    with pytest.raises(CheckpointError, match=r'evil\.pth: refused.*--trust-checkpoint'):
        convert_file(lemevit.FAMILY, tmp_path / 'evil.pth', tmp_path / 'out.pth')
    assert not (tmp_path / 'executed').exists()
    torch.save({'model': {'a': torch.zeros(1)}, 'args': argparse.Namespace(lr=0.1)}, tmp_path / 'timm.pth')
    with pytest.raises(CheckpointError, match='no weights of LeMeViT'):  # it was read
        convert_file(lemevit.FAMILY, tmp_path / 'timm.pth', tmp_path / 'out.pth')


def test_the_tool_writes_weights_that_init_cfg_loads_and_a_report(tmp_path):
    state = published_state('lemevit_tiny')
    official, out, report = tmp_path / 'official.pth', tmp_path / 'made' / 'out.pth', tmp_path / 'report.json'
    averaged = {**state, 'head.weight': torch.zeros(2, 2)}
    torch.save({'model': {'meta_tokens': torch.zeros(1)}, 'model_ema': averaged, 'epoch': 3}, official)
    done = run_tool('python', 'tools/model_converters/lemevit.py', official, out, '--report', report)
    lines = done.stdout.splitlines()
    title = lines.index(f'{official} (model_ema): LeMeViT tiny')
    assert lines[title + 1] == 'not used: model'
    assert '  stages.0.0.attn.q.weight <- stages.0.0.attn.q.weight' in lines
    assert '  norm_c.weight: feeds no feature map' in lines
    assert '  head.weight: classifier' in lines
    assert 'missing: 0' in lines
    content = json.loads(report.read_text())
    assert (content['backbone'], content['arch']) == ('LeMeViT', 'tiny')
    assert (content['entry'], content['passed_over']) == ('model_ema', ['model'])
    assert f'used: {len(content["used"])} (ours <- theirs)' in lines
    assert len(content['used']) + len(content['unused']) == len(state) + 1
    assert content['missing'] == []
    # The line of advice is what loads it.
    start = lines[-1].index('dict(')
    init_cfg = eval(lines[-1][start : lines[-1].rindex(')') + 1])
    parts = torch.nn.ModuleDict(dict(backbone=MODELS.build(dict(type='LeMeViT', arch='tiny', init_cfg=init_cfg))))
    load_pretrained_parts(take_pretrained_parts(parts))
    for name, value in parts.backbone.state_dict().items():
        assert torch.equal(value, state[name])


@pytest.mark.slow
def test_the_tool_reports_an_error_in_one_line(tmp_path):
    torch.save({'model': {'a': torch.zeros(1)}}, tmp_path / 'x.pth')
    done = run_tool(
        'python', 'tools/model_converters/lrformer.py', tmp_path / 'x.pth', tmp_path / 'out.pth', check=False
    )
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith(f'error: {tmp_path}/x.pth: no weights of LRFormer')
    assert 'Traceback' not in done.stderr
    assert not (tmp_path / 'out.pth').exists()


def test_weights_of_another_size_are_an_error_that_names_shapes(tmp_path):
    torch.save(_convert.convert(published_state('lemevit_tiny'), lemevit.FAMILY).state, tmp_path / 'tiny.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'tiny.pth'))
    parts = torch.nn.ModuleDict(dict(backbone=MODELS.build(dict(type='LeMeViT', arch='small', init_cfg=init_cfg))))
    message = (
        r'^backbone\.init_cfg: .*tiny\.pth: does not fit this model \(\d+ of \d+ entries match\): '
        r'\d+ of another shape: '
        r'meta_tokens \(16, 64\) instead of \(16, 96\), downsample_layers\.0\.0\.weight \(32, 3, 3, 3\) instead of '
        r'\(48, 3, 3, 3\), (\S+ \([\d, ]+\) instead of \([\d, ]+\),? ?){3} ?and \d+ more$'
    )
    with pytest.raises(CheckpointError, match=message):
        load_pretrained_parts(take_pretrained_parts(parts))
