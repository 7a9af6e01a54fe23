"""A held-out split is read by a test alone, and every read is noted."""

import hashlib
import json

import pytest
import torch
from mmengine.logging import MMLogger

from lale_mmseg.datasets import held_out
from lale_mmseg.engine.ledger import LEDGER_NAME, read_ledger
from lale_mmseg.engine.splits import check_scoring, check_splits, held_out_splits, refuse_held_out
from lale_mmseg.errors import CheckpointError, ConfigError, DataError
from tests.test_engine.tiny_run import TinyLoad, TinyRoofs, build, tiny_config, train


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    work_dir = tmp_path_factory.mktemp('trained')
    TinyRoofs.listed.clear()
    train(work_dir, 1)
    return work_dir, list(TinyRoofs.listed)


@pytest.fixture(autouse=True)
def _nothing_listed():
    TinyRoofs.listed.clear()


def metrics_of_test(work_dir, checkpoint, **changes):
    build(tiny_config(work_dir, load_from=str(checkpoint), **changes)).test()
    return json.loads((work_dir / 'test/metrics.json').read_text())


def test_training_never_lists_the_held_out_split(trained):
    work_dir, listed = trained
    assert set(listed) == {'train', 'val'}
    assert not (work_dir / LEDGER_NAME).exists()


def test_checks_and_class_weights_do_not_read_it(tmp_path):
    cfg = tiny_config(tmp_path)
    cfg.model.decode_head.loss_decode = [dict(type='CrossEntropyLoss', class_weight='data')]
    runner = build(cfg)
    check_splits(runner.cfg)
    check_scoring(runner.cfg, ('val', 'test'))
    assert TinyRoofs.listed == ['train pixels']
    assert held_out_splits(cfg) == ['inria test (few-shot)']


def test_every_test_is_noted_and_scores_say_its_number(trained, tmp_path, monkeypatch):
    warnings = []
    monkeypatch.setattr(MMLogger, 'warning', lambda self, message, *_: warnings.append(message))
    checkpoint = trained[0] / 'epoch_1.pth'
    (trained[0] / LEDGER_NAME).unlink(missing_ok=True)
    assert metrics_of_test(tmp_path / 'a', checkpoint)['source']['test_read'] == 1
    assert not [message for message in warnings if 'READ AGAIN' in message]
    assert metrics_of_test(tmp_path / 'b', checkpoint)['source']['test_read'] == 2
    (message,) = [message for message in warnings if 'READ AGAIN' in message]
    assert 'same config' in message
    assert 'same weights' in message
    assert len(read_ledger(trained[0] / LEDGER_NAME)[0]) == 2
    assert len(read_ledger(tmp_path / 'b' / LEDGER_NAME)[0]) == 1
    assert not held_out._open


@pytest.fixture
def images(monkeypatch):
    """Names of the images that are read."""
    names, load = [], TinyLoad.__call__

    def noted(self, results):
        names.append(results['stem'])
        return load(self, results)

    monkeypatch.setattr(TinyLoad, '__call__', noted)
    return names


def test_the_line_is_there_before_the_first_image_is_read(trained, tmp_path, monkeypatch):
    def fails(self, results):
        assert len(read_ledger(tmp_path / LEDGER_NAME)[0]) == 1
        raise RuntimeError('on purpose')

    monkeypatch.setattr(TinyLoad, '__call__', fails)
    with pytest.raises(RuntimeError, match='on purpose'):
        metrics_of_test(tmp_path, trained[0] / 'epoch_1.pth')
    assert len(read_ledger(tmp_path / LEDGER_NAME)[0]) == 1
    assert not held_out._open


def test_no_read_is_noted_where_nothing_could_be_read(trained, tmp_path, monkeypatch, images):
    """Weights that do not fit, a damaged file, data that are not there: the next test is the first."""
    checkpoint = tmp_path / 'copy.pth'
    checkpoint.write_bytes((trained[0] / 'epoch_1.pth').read_bytes())
    cfg = tiny_config(tmp_path / 'run', load_from=str(checkpoint))
    cfg.model.decode_head.channels = 5
    with pytest.raises(CheckpointError, match='does not fit'):
        build(cfg).test()
    (tmp_path / 'cut.pth').write_bytes(checkpoint.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match='damaged'):
        metrics_of_test(tmp_path / 'run', tmp_path / 'cut.pth')
    with monkeypatch.context() as patch:

        def missing(self):
            raise DataError('no such folder')

        patch.setattr(TinyRoofs, 'load_data_list', missing)
        with pytest.raises(DataError, match='no such folder'):
            metrics_of_test(tmp_path / 'run', checkpoint)
    assert images == []
    assert read_ledger(tmp_path / 'run' / LEDGER_NAME)[0] == []
    assert metrics_of_test(tmp_path / 'run', checkpoint)['source']['test_read'] == 1
    assert images


def test_no_image_is_read_where_the_ledger_cannot_be_written(trained, tmp_path, images):
    (tmp_path / LEDGER_NAME).mkdir()
    with pytest.raises(ConfigError, match='cannot be written'):
        metrics_of_test(tmp_path, trained[0] / 'epoch_1.pth')
    assert images == []


def test_the_data_know_who_read_them(trained, tmp_path):
    (tmp_path / 'data').mkdir()
    for name, number in (('a', 1), ('b', 2)):
        copy = tmp_path / name / 'copy.pth'
        copy.parent.mkdir()
        copy.write_bytes((trained[0] / 'epoch_1.pth').read_bytes())
        cfg = tiny_config(tmp_path / name / 'run', load_from=str(copy))
        cfg.test_dataloader.dataset.data_root = str(tmp_path / 'data')
        build(cfg).test()
        metrics = json.loads((tmp_path / name / 'run/test/metrics.json').read_text())
        assert metrics['source']['test_read'] == number
    assert len(read_ledger(tmp_path / 'data' / LEDGER_NAME)[0]) == 2


def test_scores_say_what_was_tested(trained, tmp_path):
    checkpoint = trained[0] / 'epoch_1.pth'
    assert metrics_of_test(tmp_path / 'a', checkpoint)['run'] == dict(
        checkpoint='epoch_1.pth',
        start=torch.load(checkpoint, weights_only=True)['meta']['experiment_name'],
        split='test',
        epoch=1,
        iter=2,
        digest=hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        mode='whole',
        views='none',
    )
    bare = tmp_path / 'bare.pth'
    torch.save(torch.load(checkpoint, weights_only=True)['state_dict'], bare)
    cfg = tiny_config(tmp_path / 'b', load_from=str(bare))
    cfg.test_dataloader.dataset.free = True
    test_cfg = dict(mode='slide', crop_size=(16, 16), stride=(16, 16), views='d4', scales=(0.5, 1.0))
    cfg.model.test_cfg = test_cfg
    build(cfg).test()
    run = json.loads((tmp_path / 'b/test/metrics.json').read_text())['run']
    assert {name: value for name, value in run.items() if value is not None} == dict(
        checkpoint='bare.pth', split='test', mode='slide', views='d4, scales 0.5 1'
    )


def test_scores_of_a_test_behind_training_name_its_epoch_and_validations_name_none(tmp_path):
    cfg = tiny_config(tmp_path, 2)
    cfg.test_dataloader.dataset.free = True
    runner = build(cfg)
    runner.train()
    assert json.loads((tmp_path / 'val/metrics.json').read_text())['run'] is None
    runner.test()
    run = json.loads((tmp_path / 'test/metrics.json').read_text())['run']
    assert (run['checkpoint'], run['epoch'], run['iter'], run['digest']) == (None, 2, 4, None)


@pytest.mark.parametrize('phase', ['train', 'val'])
def test_it_is_neither_trained_on_nor_chosen_by(tmp_path, phase):
    cfg = tiny_config(tmp_path)
    # Inside a wrapper, too.
    inner = cfg[f'{phase}_dataloader'].dataset
    inner.split = 'test'
    cfg[f'{phase}_dataloader'].dataset = dict(type='RepeatDataset', dataset=inner, times=1)
    cfg.model.decode_head.loss_decode = [dict(type='CrossEntropyLoss', class_weight='data')]
    message = rf'{phase}_dataloader\.dataset\.dataset \(TinyRoofs\) is inria test \(few-shot\), which is held out'
    with pytest.raises(ConfigError, match=message):
        build(cfg).train()
    if phase == 'val':
        with pytest.raises(ConfigError, match=message):
            build(cfg).val()
    assert 'test' not in TinyRoofs.listed
    assert 'test pixels' not in TinyRoofs.listed


def prepared(root, kind='inria-few-shot'):
    """A folder as data_prep makes it, without images."""
    (root / 'crops' / 'images').mkdir(parents=True)
    (root / 'crops' / 'classes.csv').write_text('index,name,r,g,b\n0,all,0,0,0\n1,roof,255,255,255\n')
    (root / 'manifest.json').write_text(json.dumps(dict(parts=dict(austin31=dict(kind=kind)))))
    return root


def foreign(root):
    """Datasets that know of no held-out split and read the crops there."""
    prefix = dict(img_path='crops/images', seg_map_path='crops/masks')
    yield dict(type='BaseSegDataset', data_root=str(root), data_prefix=prefix)
    yield dict(type='BaseSegDataset', data_prefix={key: str(root / path) for key, path in prefix.items()})
    yield dict(type='BaseSegDataset', data_root=str(root / 'crops/images'))
    yield dict(type='PaletteDataset', data_root=str(root / 'crops'))


@pytest.mark.parametrize('which', range(4))
@pytest.mark.parametrize('phase', ['train', 'val'])
def test_no_other_dataset_trains_on_a_folder_that_has_it(tmp_path, which, phase):
    cfg = tiny_config(tmp_path / 'run')
    inner = [*foreign(prepared(tmp_path / 'data'))][which]
    cfg[f'{phase}_dataloader'].dataset = dict(type='RepeatDataset', dataset=inner, times=1)
    kind = inner['type']
    message = (
        rf'{phase}_dataloader\.dataset\.dataset \({kind}\) reads {tmp_path}/data, which was prepared for .few-shot. '
        r"and holds held-out tiles; InriaDataset with protocol='few-shot' reads its splits"
    )
    with pytest.raises(ConfigError, match=message):
        build(cfg).train()


def test_no_other_dataset_is_tested_on_it_unnoted(tmp_path):
    cfg = tiny_config(tmp_path / 'run', test=True)
    cfg.test_dataloader.dataset = next(iter(foreign(prepared(tmp_path / 'data'))))
    with pytest.raises(ConfigError, match=r'test_dataloader\.dataset \(\w+\) reads .*/data, which was prepared for'):
        build(cfg).test()


def test_not_through_a_link_either(tmp_path):
    prepared(tmp_path / 'data')
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'images').symlink_to(tmp_path / 'data' / 'crops' / 'images')
    cfg = tiny_config(tmp_path / 'run')
    cfg.train_dataloader.dataset = dict(type='BaseSegDataset', data_prefix=dict(img_path=str(tmp_path / 'mine/images')))
    with pytest.raises(ConfigError, match=f'reads {tmp_path}/data, which was prepared'):
        refuse_held_out(cfg, ('train',))


@pytest.mark.parametrize('kind', ['inria-full', 'mine', None])
def test_other_folders_are_open(tmp_path, kind):
    root = prepared(tmp_path, kind)
    if kind is None:
        (root / 'manifest.json').write_text('{"a": 1}\n{"a": 2}\n')  # lines of JSON, of other data
    cfg = tiny_config(tmp_path / 'run')
    for dataset in foreign(root):
        cfg.train_dataloader.dataset = dataset
        refuse_held_out(cfg, ('train', 'val'))


def test_a_loader_that_is_built_otherwise_meets_the_lock(tmp_path):
    runner = build(tiny_config(tmp_path))
    message = r"split 'test' is held out: it is read by tools/test\.py alone.* and in the data folder"
    with pytest.raises(ConfigError, match=message):
        runner.test_dataloader  # noqa: B018
    assert TinyRoofs.listed == []


def test_it_is_tested_from_a_checkpoint_file(trained, tmp_path):
    with pytest.raises(ConfigError, match='is tested from a checkpoint file'):
        build(tiny_config(tmp_path)).test()
    with pytest.raises(ConfigError, match='is tested from a checkpoint file'):
        build(tiny_config(trained[0], resume=True)).test()
    runner = train(tmp_path, 1)
    runner._load_from = str(tmp_path / 'epoch_1.pth')
    with pytest.raises(ConfigError, match='in a process that does not train'):
        runner.test()
    assert 'test' not in TinyRoofs.listed
    assert not (tmp_path / LEDGER_NAME).exists()


def test_splits_that_are_not_held_out_are_not_noted(trained, tmp_path):
    cfg = tiny_config(tmp_path, load_from=str(trained[0] / 'epoch_1.pth'))
    cfg.test_dataloader.dataset.free = True
    build(cfg).test()
    assert not (tmp_path / LEDGER_NAME).exists()
    assert 'test_read' not in json.loads((tmp_path / 'test/metrics.json').read_text())['source']
