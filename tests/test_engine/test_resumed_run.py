"""What a resumed run takes from its checkpoint: the seed of its draws, and all weights."""

import pytest
import torch
from mmengine.dataset import DefaultSampler
from mmseg.registry import DATA_SAMPLERS, RUNNERS

from lale_mmseg.engine import hooks
from lale_mmseg.engine.hooks.epoch_seed import epoch_seed
from lale_mmseg.errors import ConfigError
from tests.test_engine.tiny_run import TinyBackbone, tiny_config


@DATA_SAMPLERS.register_module(force=True)
class SeenSeeds(DefaultSampler):
    """Notes the seed with which each epoch is drawn."""

    seen: list[tuple[int, int]] = []

    def __iter__(self):
        SeenSeeds.seen.append((self.epoch, self.seed))
        return super().__iter__()


@pytest.fixture(autouse=True)
def nothing_seen():
    SeenSeeds.seen.clear()


def run(work_dir, seed, epochs, resume=False, sampler=None, **changes):
    cfg = tiny_config(work_dir, epochs=epochs, **changes)
    cfg.train_dataloader.sampler = dict(type='SeenSeeds', shuffle=True, **(sampler or {}))
    cfg.randomness = dict(seed=seed)
    cfg.resume = resume
    RUNNERS.build(cfg).train()


def test_draws_go_on_with_the_seed_of_the_checkpoint(tmp_path):
    run(tmp_path, 5, 1)
    run(tmp_path, 6, 2, resume='auto')
    assert SeenSeeds.seen == [(0, 5), (1, 5)]


def test_a_sampler_with_a_seed_of_its_own_keeps_it(tmp_path):
    run(tmp_path, 5, 1, sampler=dict(seed=11))
    run(tmp_path, 6, 2, resume='auto', sampler=dict(seed=11))
    assert SeenSeeds.seen == [(0, 11), (1, 11)]


@pytest.mark.parametrize('named', [True, False], ids=['by its path', 'the newest'])
def test_published_weights_are_read_once(tmp_path, monkeypatch, named):
    """A part that takes published weights is asked for them at the start, not when a checkpoint has its weights."""
    asked = []

    def init_weights(self):
        asked.append(self.pretrained_weights)

    monkeypatch.setattr(TinyBackbone, 'pretrained_weights', 'published.pth', raising=False)
    monkeypatch.setattr(TinyBackbone, 'init_weights', init_weights, raising=False)
    run(tmp_path, 5, 1)
    cfg = tiny_config(tmp_path, epochs=2)
    cfg.resume = True if named else 'auto'
    cfg.load_from = str(tmp_path / 'epoch_1.pth') if named else None
    RUNNERS.build(cfg).train()
    # Nothing to resume: the run starts from published weights after all.
    cfg = tiny_config(tmp_path / 'new', epochs=1)
    cfg.resume = 'auto'
    RUNNERS.build(cfg).train()
    assert asked == ['published.pth', None, 'published.pth']


def with_dropout(work_dir, epochs, **changes):
    cfg = tiny_config(work_dir, epochs, **changes)
    cfg.model.decode_head.dropout_ratio = 0.3
    RUNNERS.build(cfg).train()
    return torch.load(work_dir / f'epoch_{epochs}.pth', weights_only=True)['state_dict']


def test_a_resumed_run_drops_what_a_straight_one_does(tmp_path):
    straight = with_dropout(tmp_path / 'straight', 4)
    with_dropout(tmp_path / 'resumed', 2)
    resumed = with_dropout(tmp_path / 'resumed', 4, resume='auto')
    assert all(torch.equal(value, resumed[name]) for name, value in straight.items())
    other = with_dropout(tmp_path / 'other', 4, randomness=dict(seed=2))
    assert not torch.equal(straight['decode_head.conv_seg.weight'], other['decode_head.conv_seg.weight'])


def test_epochs_and_ranks_have_seeds_of_their_own():
    seeds = {epoch_seed(seed, epoch, rank) for seed in range(3) for epoch in range(4) for rank in range(2)}
    assert len(seeds) == 24
    assert epoch_seed(1, 2, 0) == epoch_seed(1, 2, 0)
    for seed in seeds:
        torch.manual_seed(seed)  # takes 64 bits


def test_runs_by_iterations_are_not_seeded_anew(tmp_path, monkeypatch):
    """Whose epochs never begin."""
    seeds = []
    monkeypatch.setattr(hooks.epoch_seed.torch, 'manual_seed', seeds.append)
    cfg = tiny_config(tmp_path)
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=3, val_interval=3)
    cfg.default_hooks.update(diagnostics=None, early_stopping=None)
    cfg.default_hooks.report.overlay_interval = None
    cfg.default_hooks.checkpoint.update(by_epoch=False, interval=3)
    cfg.log_processor.by_epoch = False
    cfg.param_scheduler = []
    runner = RUNNERS.build(cfg)
    seeds.clear()
    runner.train()
    assert seeds == []


def test_a_work_dir_belongs_to_one_run(tmp_path):
    run(tmp_path, 5, 1)
    run(tmp_path, 5, 2, resume='auto')
    with pytest.raises(ConfigError, match=r'checkpoints of another run \(.*epoch_1\.pth.*--resume.*--overwrite'):
        run(tmp_path, 5, 1)
    run(tmp_path, 5, 1, overwrite=True)
    assert [path.name for path in tmp_path.glob('epoch_*.pth')] == ['epoch_1.pth']
