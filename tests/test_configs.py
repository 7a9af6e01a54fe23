"""Every config loads, passes the checks, and its network and parts can be built."""

import re

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmseg.registry import MODELS, TRANSFORMS

from lale_mmseg.engine.config import PHASES, decode_heads, leaf_datasets
from lale_mmseg.engine.fields import check_fields
from lale_mmseg.metainfo import isprs
from lale_mmseg.metainfo.protocols import find_protocol
from tests.support import REPO

CONFIGS = sorted(path for path in (REPO / 'configs').rglob('*.py') if '_base_' not in path.parts)
NAME = re.compile(r'[a-z0-9+-]+(_[a-z0-9+-]+)?_\d+xb\d+-[a-z0-9-]+_[a-z0-9-]+-\d+x\d+')


def test_there_are_configs_of_every_promised_kind():
    names = ' '.join(path.stem for path in CONFIGS)
    for size in ('s1', 's2', 's3', 's4'):
        assert f'lale_{size}_1xb64-plateau-20e_aras400k-256x256' in names
        assert f'lale_{size}_1xb64-plateau-20e_aras400k-real-synth-256x256' in names
    assert 'lale_s1-k7_' in names
    assert 'palette' in names
    for variant in ('s1-lrsa', 's1-meta', 's2-lrsa', 's2-meta', 's1-lrsa4'):
        assert f'lale_{variant}_1xb64-plateau-20e_aras400k-256x256' in names
    for protocol in isprs.PROTOCOLS:
        for city in protocol.splits:
            assert f'lale_s1_1xb8-80k_{city}-{protocol.name}-512x512' in names
    for protocol, crop in (('full', '512x512'), ('few-shot', '1024x1024')):
        assert re.search(rf'(^| )lale_s1_\d+xb\d+-[a-z0-9-]+_inria-{protocol}-{crop}( |$)', names), protocol
    for parts in ('ued', 'ued-bes', 'ued-bes-sfm'):
        assert f'{parts}_x10_1xb8-500e_vaihingen-boundary-512x512' in names
        assert f'{parts}_x10_1xb8-onecycle-400_palette-256x256' in names
    for dataset in ('vaihingen-boundary', 'potsdam-geoseg', 'aras400k', 'palette'):
        for network in ('ued-bes-sfm_x10', 'lale-body-edge_s1'):
            assert re.search(rf'{network}_\d+xb\d+-[a-z0-9-]+_{dataset}-\d', names), (network, dataset)
    for network in ('lrformer_t', 'lrformer-plus_t', 'lemevit_tiny', 'lemevit_small', 'lemevit_base'):
        assert re.search(rf'{re.escape(network)}_\d+xb\d+-[a-z0-9-]+_potsdam-(rsp|geoseg)-', names), network
    sizes = {'lrformer': 't s b l', 'lrformer-plus': 't s b l xl', 'lemevit': 'tiny small base'}
    for family, its_sizes in sizes.items():
        for size in its_sizes.split():
            for dataset in ('aras400k', 'palette', *(['ade20k'] if family != 'lemevit' else [])):
                assert re.search(rf'(^| ){re.escape(family)}_{size}_\d+xb\d+-[a-z0-9-]+_{dataset}-', names), (
                    family,
                    size,
                )


@pytest.mark.parametrize('folder', ['lrformer', 'lrformer_plus', 'lemevit'])
def test_models_and_data_sets_are_exchanged_by_one_line(folder):
    """A config is a model, a data set, the runtime and a schedule; the crop size where it is not the model's, and the
    score that chooses the best checkpoint where it is not the schedule's."""
    for path in (REPO / 'configs' / folder).glob('*.py'):
        cfg = Config._file2dict(str(path))[0]  # as it stands, bases included
        bases = re.findall(r"^    '\.\./_base_/(\w+)", path.read_text(), re.MULTILINE)
        if 'lale' in path.stem:
            continue
        assert bases == ['models', 'datasets', 'default_runtime', 'schedules'], path.stem
        crop = tuple(int(side) for side in path.stem.rpartition('-')[2].split('x'))
        assert tuple(cfg['model']['data_preprocessor']['size']) == crop
        rest = re.sub(r'^_base_ = \[.*?^\]$|^#.*?$', '', path.read_text(), flags=re.MULTILINE | re.DOTALL).strip()
        if re.search('_(potsdam|vaihingen)-', path.stem):  # tiles are tested by a sliding window
            rest = re.sub(r'^model = dict\(test_cfg=.*$', '', rest, flags=re.M).strip()
        lines = [
            f'model = dict(data_preprocessor=dict(size={crop}))',
            "default_hooks = dict(checkpoint=dict(save_best='mIoU'))",
            'default_hooks = dict(checkpoint=dict(save_best=None))',
            'train_dataloader = dict(batch_size=16)',
        ]
        assert set(rest.splitlines()) <= set(lines), path.stem


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_config(path):
    assert NAME.fullmatch(path.stem), f'{path.stem}: names are MODEL_SIZE_GPUSxbBATCH-SCHEDULE_DATASET-CROP'
    cfg = Config.fromfile(path)
    check_fields(cfg)
    assert cfg.runner_type == 'LALERunner'
    assert 'lale_mmseg.register' in cfg.custom_imports['imports']
    for _, head in decode_heads(cfg):
        head.num_classes = head.num_classes or (2 if re.search('_inria-|-building-', path.stem) else 7)
    with torch.device('meta'), torch.no_grad():  # shapes alone: no weights are drawn, nothing is computed
        model = MODELS.build(cfg.model).eval()
        bands = (cfg.model.get('backbone') or cfg.model).get('in_channels', 3)
        maps = model.backbone(torch.empty(1, bands, 64, 96))
    for _, head in decode_heads(cfg):
        if 'in_channels' not in head:  # a decoder that takes its widths from the encoder
            continue
        widths = [x.shape[1] for x in maps]
        index = head.get('in_index', range(len(widths)))
        single = isinstance(index, int)
        found = head.in_channels if single else list(head.in_channels)
        assert found == (widths[index] if single else [widths[i] for i in index])
    # ADE20K is compared by mIoU everywhere; nothing is chosen on the test tiles of protocols that validate on them.
    validates_on_test = re.search(r'-(mmseg|rsp|boundary)-\d', path.stem)
    by_iou = re.search('_ade20k-|_inria-few-shot-|-building-', path.stem)
    best = 'mIoU' if by_iou else None if validates_on_test else 'mF1'
    assert cfg.default_hooks.checkpoint.save_best == best
    assert cfg.default_hooks.checkpoint.interval > 0
    batch = re.search(r'_\d+xb(\d+)-', path.stem).group(1)
    assert cfg.train_dataloader.batch_size == int(batch)
    for phase in ('train', 'val', 'test'):
        for step in cfg[f'{phase}_dataloader'].dataset.pipeline:
            if step.type == 'SeededAlbu' and 'transforms' not in step:
                step.transforms = cfg.augmentation
            TRANSFORMS.build(step)
    wrapper = Runner.build_optim_wrapper(_Bare(model), cfg.optim_wrapper)
    assert len(wrapper.optimizer.param_groups[0]['params']) > 0
    if cfg.train_cfg.type == 'IterBasedTrainLoop':
        ends = [s.get('end', s.get('total_steps')) for s in cfg.param_scheduler]
        assert max(ends) == cfg.train_cfg.max_iters


@pytest.mark.parametrize('path', [path for path in CONFIGS if '_inria-' in path.stem], ids=lambda path: path.stem)
def test_inria_configs_are_of_one_protocol(path):
    cfg = Config.fromfile(path)
    name = re.search(r'_inria-(full|few-shot)-', path.stem).group(1)
    # The labels of the full protocol's test tiles are hidden: its validation tiles are scored.
    splits = dict(train='train', val='val', test='val' if name == 'full' else 'test')
    for phase in PHASES:
        for _, dataset in leaf_datasets(cfg, phase):
            assert (dataset.protocol, dataset.split) == (name, splits[phase])
    for evaluators in (cfg.val_evaluator, cfg.test_evaluator):
        first = evaluators[0] if isinstance(evaluators, list) else evaluators
        assert (first.type, first.protocol) == ('TileSegmentationMetric', name)


@pytest.mark.parametrize('path', [path for path in CONFIGS if '-plateau-60e' in path.stem], ids=lambda path: path.stem)
def test_attempts_have_one_recipe(path):
    """What the comparison of attempts rests on: all but the network, and what the protocol changes with it."""
    cfg = Config.fromfile(path)
    sam, frozen = path.stem.startswith('sam-'), 'freeze-20e' in path.stem
    assert cfg.train_dataloader.sampler == dict(type='ReplacementSampler', samples_per_epoch=400)
    assert cfg.train_dataloader.batch_size == (2 if sam else 4)
    assert cfg.optim_wrapper.optimizer.type == 'AdamW'
    assert cfg.optim_wrapper.optimizer.lr == (1e-4 if sam else 1e-3)
    assert cfg.optim_wrapper.optimizer.weight_decay == 1e-4
    assert cfg.randomness.seed == 42
    assert cfg.augmentation == ('light' if '-cache_' in path.stem else 'medium')
    assert cfg.train_cfg.max_epochs == 60
    (plateau,) = cfg.param_scheduler
    assert (plateau.monitor, plateau.factor, plateau.patience) == ('mIoU', 0.5, 3)
    stopping = cfg.default_hooks.early_stopping
    assert (stopping.monitor, stopping.patience, stopping.get('begin', 0)) == ('mIoU', 10, 20 if frozen else 0)
    assert ('frozen_backbone' in cfg.default_hooks) == frozen == ('r34' in path.stem)
    losses = {loss.type: loss.loss_weight for loss in cfg.model.decode_head.loss_decode}
    assert losses == {'CrossEntropyLoss': 0.5, 'SoftDiceLoss': 0.5}
    assert [each.type for each in cfg.val_evaluator] == ['TileSegmentationMetric', 'LogitsLossMetric']
    assert cfg.model.test_cfg.keep_logits


@pytest.mark.parametrize(
    'path', [path for path in CONFIGS if re.search('_(potsdam|vaihingen)-', path.stem)], ids=lambda path: path.stem
)
def test_isprs_configs_are_of_one_protocol(path):
    cfg = Config.fromfile(path)
    city, name, clean = re.search(r'_(potsdam|vaihingen)-([a-z]+)(-clean)?-\d', path.stem).groups()
    for phase in PHASES:
        for _, dataset in leaf_datasets(cfg, phase):
            assert (dataset.city, dataset.protocol, dataset.split) == (city, name, phase)
            assert dataset.clean == bool(clean)
    assert cfg.val_evaluator.protocol == cfg.test_evaluator.protocol == name
    assert cfg.data_root == f'data/{city}'
    assert cfg.model.test_cfg.mode == 'slide'
    assert tuple(cfg.model.test_cfg.crop_size) == tuple(cfg.model.data_preprocessor.size) == (512, 512)
    bases = re.findall(r"'([^']+\.py)'", path.read_text())
    text = ''.join(file.read_text() for file in [path, *(path.parent / base for base in bases)])
    if find_protocol(name).selects_on_test(city) and not clean:
        assert re.search(r'validation\s+(# )?is\s+(# )?on\s+(# )?the\s+(# )?(\d+ )?test', text)


@pytest.mark.parametrize(
    'path',
    [path for path in CONFIGS if re.search(r'_(potsdam|vaihingen)-(mmseg|rsp|boundary)-\d', path.stem)],
    ids=lambda path: path.stem,
)
def test_configs_that_validate_on_test_tiles_have_a_clean_sibling(path):
    """The same but for the tiles, and for the best checkpoint, which is chosen."""
    stem, _, crop = path.stem.rpartition('-')
    sibling = path.with_name(f'{stem}-clean-{crop}.py')
    assert sibling.is_file()
    published, clean = (Config.fromfile(file).to_dict() for file in (path, sibling))
    for cfg in (published, clean):
        for phase in PHASES:
            cfg[f'{phase}_dataloader']['dataset'].pop('clean', None)
    assert published['default_hooks']['checkpoint'].pop('save_best') is None
    assert clean['default_hooks']['checkpoint'].pop('save_best') == 'mF1'
    assert clean == published


class _Bare:
    """As much of a runner as building an optimizer needs."""

    def __init__(self, model):
        self.model = model


@pytest.mark.parametrize('path', sorted((REPO / 'configs/_base_/schedules').glob('*.py')), ids=lambda p: p.stem)
def test_schedules_fit_their_names(path):
    cfg = Config.fromfile(path)
    number = int(re.search(r'_(\d+)', path.stem).group(1)) * (1000 if path.stem.endswith('k') else 1)
    assert number in (cfg.train_cfg.get('max_iters'), cfg.train_cfg.get('max_epochs'))
    assert cfg.default_hooks.checkpoint.save_best == ('mIoU' if '_60e' in path.stem else 'mF1')
    assert cfg.default_hooks.checkpoint.max_keep_ckpts >= 2


def test_families_have_a_read_me_and_a_metafile():
    for folder in {path.parent for path in CONFIGS}:
        assert (folder / 'README.md').is_file(), folder
        assert (folder / 'metafile.yaml').is_file(), folder
