"""The README and the docs match the repository: links, paths, commands, options, snippets, sizes and results."""

import importlib
import importlib.util
import io
import itertools
import re
import shlex
import sys
from collections.abc import Iterable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmseg.registry import MODELS, RUNNERS

from data_prep.make_toy import make_toy
from lale_mmseg.engine.config import check_config, complete_config
from lale_mmseg.engine.fields import check_overrides
from lale_mmseg.metainfo.isprs import TILES
from tests.support import REPO

README = REPO / 'README.md'
PAGES = [README, *sorted((REPO / 'docs').glob('*.md')), *sorted((REPO / 'configs').glob('*/README.md'))]
#: Replaces the word CONFIG in commands.
ANY_CONFIG = 'configs/lale/lale_s1_1xb8-onecycle-400_palette-256x256.py'
#: The tool behind each script, and the arguments that the script passes on to it.
SCRIPTS = {
    'tools/dist_train.sh': ('tools/train.py', lambda words: [words[0], *words[2:]]),
    'tools/dist_test.sh': ('tools/test.py', lambda words: [*words[:2], *words[3:]]),
    'tools/slurm_train.sh': ('tools/train.py', lambda words: words[2:]),
    'tools/slurm_test.sh': ('tools/test.py', lambda words: words[2:]),
}
#: Scripts with subcommands, which have the options.
COMMANDS_OF = {
    'data_prep/aras400k.py': ('archives', 'parquet', 'raw'),
    'data_prep/inria.py': ('full', 'few-shot'),
    'data_prep/isprs.py': ('potsdam', 'vaihingen'),
}
#: All scripts with a command line.
PYTHON_SCRIPTS = [
    str(path.relative_to(REPO))
    for path in [*(REPO / 'tools').rglob('[!_]*.py'), *(REPO / 'data_prep').glob('*.py')]
    if "if __name__ == '__main__'" in path.read_text()
]
#: The page that explains all options of a script, in a section named after the script if there is one.
EXPLAINED = {
    'tools/train.py': 'train_test_predict',
    'tools/test.py': 'train_test_predict',
    'tools/predict.py': 'train_test_predict',
    'tools/analysis/attention_map.py': 'attention_maps',
    'tools/analysis/compare_protocols.py': 'protocols',
    'tools/analysis/compare_runs.py': 'few_shot',
    'tools/analysis/data_budget.py': 'few_shot',
    'tools/analysis/inria_submission.py': 'inria_submission',
    'tools/model_converters/lrformer.py': 'pretrained_weights',
    'data_prep/verify.py': 'own_data',
    'data_prep/make_toy.py': 'aras400k',
    'data_prep/aras400k.py': 'aras400k',
    'data_prep/isprs.py': 'isprs',
    'data_prep/inria.py': 'inria',
}
OPTION = r'(?<![\w-])--[a-z][\w-]*'
#: Options of other programs that the pages mention.
FOREIGN_OPTIONS = {'--logdir'}
SHELL_ONLY = ('tools/quickstart.sh', 'tools/run_tests.sh', 'tools/setup_env.sh')

each_page = pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(REPO)))


def blocks(page: Path, language: str) -> list[str]:
    """Contents of the fenced blocks of a language."""
    return re.findall(rf'^```{language}\n(.*?)^```$', page.read_text(), re.MULTILINE | re.DOTALL)


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return re.sub(r'^```.*?^```$', '', page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Anchors of the headings on GitHub."""
    headings = re.findall(r'^#+ (.+)$', prose(page), re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


def commands(page: Path) -> list[str]:
    """Commands in bash blocks, with continued lines joined, and those written as code in the text."""
    lines = '\n'.join(blocks(page, 'bash')).replace('\\\n', ' ').splitlines()
    inline = re.findall(r'`((?:[A-Z_]+=\S* )*(?:python|bash) [^`]+)`', prose(page))
    return [line.strip() for line in [*lines, *inline] if line.strip()]


def load_script(path: str):
    """A script as a module, without running it; of a script that only calls a command, the module of the command."""
    if path.startswith('tools/') and (REPO / 'lale_mmseg' / 'cli' / path.removeprefix('tools/')).is_file():
        return importlib.import_module(f'lale_mmseg.cli.{Path(path).stem}')
    name = 'documented_' + re.sub(r'\W', '_', path)
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, REPO / path)
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def parse(path: str, words: list[str], monkeypatch):
    """Arguments as the script's own parser reads them; SystemExit if it rejects them."""
    monkeypatch.syspath_prepend(str((REPO / path).parent))
    monkeypatch.syspath_prepend(str(REPO / 'tools'))
    module = load_script(path)
    monkeypatch.setattr(sys, 'argv', [path, *words])
    return module.build_parser().parse_args(words) if hasattr(module, 'build_parser') else module.parse_args()


def options_of(script: str, monkeypatch) -> set[str]:
    """Long options in the help of a script and its subcommands."""
    text = io.StringIO()
    for command in COMMANDS_OF.get(script, (None,)):
        with redirect_stdout(text), pytest.raises(SystemExit):
            parse(script, [command, '--help'] if command else ['--help'], monkeypatch)
    return set(re.findall(OPTION, text.getvalue())) - {'--help'}


@each_page
def test_links_and_pictures_exist(page):
    targets = re.findall(r'\]\(([^)\s]+)\)', prose(page))
    broken = []
    for target in targets:
        if target.startswith(('http://', 'https://')):
            continue
        path, _, anchor = target.partition('#')
        found = page if not path else (page.parent / path).resolve()
        if not found.exists() or (anchor and anchor not in anchors(found)):
            broken.append(target)
    assert not broken


@each_page
def test_paths_in_the_repository_exist(page):
    rooms = 'configs|tools|data_prep|lale_mmseg|tests|requirements|benchmarks|docs'
    found = re.findall(rf'(?<![\w./-])(?:\.\./)?((?:{rooms})/[\w./*+-]+)', page.read_text())
    # NAME is a placeholder.
    paths = {path.rstrip('.') for path in found if 'NAME' not in path}
    assert [path for path in sorted(paths) if not any(REPO.glob(path.rstrip('/')))] == []


@each_page
def test_commands_are_accepted_by_the_scripts(page, monkeypatch):
    for command in commands(page):
        words = shlex.split(command, comments=True)
        words = list(itertools.dropwhile(lambda word: re.match(r'[A-Z_]+=', word), words))
        if len(words) < 2 or words[0] not in ('python', 'bash') or words[1] in SHELL_ONLY:
            continue
        assert (REPO / words[1]).is_file(), command
        if words[1].startswith('benchmarks/'):
            continue
        script, arguments = words[1], words[2:]
        if script in SCRIPTS:
            script, own = SCRIPTS[script]
            arguments = own(arguments)
        message = io.StringIO()
        try:
            with redirect_stderr(message):
                args = parse(script, arguments, monkeypatch)
        except SystemExit:
            raise AssertionError(f'{command}\n{message.getvalue()}') from None
        if getattr(args, 'cfg_options', None):
            config = getattr(args, 'config', 'CONFIG')  # tools/predict.py has that of the checkpoint
            config = ANY_CONFIG if config == 'CONFIG' else config
            check_overrides(Config.fromfile(REPO / config), args.cfg_options)


@each_page
def test_options_in_tables_and_text_exist(page, monkeypatch):
    """An option written as code belongs to some script."""
    known = FOREIGN_OPTIONS.union(*(options_of(script, monkeypatch) for script in PYTHON_SCRIPTS))
    code = ' '.join(re.findall(r'`([^`\n]+)`', prose(page)))
    assert set(re.findall(OPTION, code)) - known == set()


@pytest.mark.parametrize(('script', 'page'), EXPLAINED.items())
def test_every_option_is_explained(script, page, monkeypatch):
    text = (REPO / 'docs' / f'{page}.md').read_text()
    section = re.search(rf'^## {script}$(.*?)(?=^## )', text, re.MULTILINE | re.DOTALL)
    options = options_of(script, monkeypatch) - {'--local-rank'}  # the same as --local_rank
    assert len(options) >= 4
    assert options - set(re.findall(OPTION, section.group(1) if section else text)) == set()


def test_the_readme_begins_with_the_two_commands():
    assert blocks(README, 'bash')[0].splitlines() == ['bash tools/quickstart.sh', 'bash tools/run_tests.sh']


def test_the_index_lists_every_page():
    text = (REPO / 'docs' / 'index.md').read_text()
    names = [page.name for page in (REPO / 'docs').glob('*.md') if page.name != 'index.md']
    assert [name for name in names if f'({name})' not in text] == []


TABLE = 'index,name,r,g,b\n0,building,9,0,0\n1,vegetation,0,9,0\n2,ground,0,0,9\n'
COLORS = np.array([(9, 0, 0), (0, 9, 0), (0, 0, 9)], np.uint8)


def write_pairs(
    root: Path, names: Iterable[str], folders: tuple[str, str], image: np.ndarray, mask: np.ndarray
) -> None:
    """Writes the same image and mask under each name, into an image and a mask folder."""
    for folder, pixels in zip(folders, (image, mask), strict=True):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for name in names:
            assert cv2.imwrite(str(root / folder / name), pixels)


@pytest.fixture(scope='module')
def workspace(tmp_path_factory) -> Path:
    """The folder of a reader: our configs, and every file that a page shows."""
    root = tmp_path_factory.mktemp('reader')
    (root / 'configs').symlink_to(REPO / 'configs')
    for page in PAGES:
        for block in blocks(page, 'python'):
            name = re.match(r'# (\S+\.py)\n', block)
            if name and not (root / name.group(1)).exists():
                (root / name.group(1)).parent.mkdir(exist_ok=True)
                (root / name.group(1)).write_text(block)
    sys.path.insert(0, str(root))
    yield root
    sys.path.remove(str(root))


@pytest.fixture(scope='module')
def data_of(workspace):
    """Function (config) -> folder with data that fit it."""
    rng = np.random.default_rng(0)
    image, labels = rng.integers(0, 250, (64, 64, 4), np.uint8), rng.integers(0, 6, (64, 64), np.uint8)
    names = [f'{number}.tif' for number in range(4)]
    river = np.array([(0, 0, 255), (128, 128, 128), (0, 255, 0)], np.uint8)
    for folder, colors, own in (
        ('palette', COLORS, image[..., :3]),
        ('bands', COLORS, image.astype(np.uint16)),
        ('rivers', river, image[..., :3]),
    ):
        root = workspace / folder
        write_pairs(root, names, ('images', 'masks'), own, colors[labels % 3][..., ::-1])
        (root / 'classes.csv').write_text(TABLE)
        for split in ('train', 'val', 'test'):
            (root / f'{split}.txt').write_text('\n'.join(names))
    for split in ('train', 'val'):
        folders = (f'img_dir/{split}', f'ann_dir/{split}')
        write_pairs(workspace / 'indexes', [f'{number}.png' for number in range(4)], folders, image[..., :3], labels)
    tiles = [f'{tile}.png' for tile in TILES['potsdam']]
    for folder, kind in (('windows', 'labels_full'), ('tiles', 'labels_eroded')):
        folders = (f'{folder}/images', f'{folder}/{kind}')
        write_pairs(workspace / 'isprs', tiles, folders, image[..., :3], labels)
    make_toy(workspace / 'aras400k', dict(train=4, val=2, test=2, synth=4), size=64, parquet=True, workers=1)

    def find(cfg: Config) -> Path:
        dataset = cfg.train_dataloader.dataset.type
        if dataset == 'PaletteDataset':
            return workspace / ('bands' if len(cfg.model.data_preprocessor.mean) == 4 else 'palette')
        folders = dict(RiverDataset='rivers', PotsdamDataset='indexes', ISPRSProtocolDataset='isprs')
        return workspace / folders.get(dataset, 'aras400k')

    return find


@pytest.fixture(scope='module')
def weights(workspace) -> None:
    """The checkpoints that configs of the pages begin with, where they name them."""
    for name, model in (
        ('work_dirs/other/best_mF1_iter_400.pth', dict(type='LALE', arch='s1')),
        ('other/best_mF1_iter_400.pth', dict(type='LALE', arch='s1')),
        ('lemevit_tiny.pth', dict(type='LeMeViT', arch='tiny')),
    ):
        (workspace / name).parent.mkdir(parents=True, exist_ok=True)
        prefix = '' if name.startswith('lemevit') else 'backbone.'
        state = {f'{prefix}{key}': value for key, value in MODELS.build(model).state_dict().items()}
        torch.save(dict(state_dict=state), workspace / name)


def snippets() -> list[tuple[Path, str]]:
    """(page, file name) of every config that a page shows."""
    found = [(page, block) for page in PAGES for block in blocks(page, 'python') if '_base_' in block]
    return [(page, re.match(r'# (\S+\.py)\n', block).group(1)) for page, block in found]


@each_page
def test_python_blocks_compile_and_configs_name_their_file(page):
    for block in blocks(page, 'python'):
        compile(block, page.name, 'exec')
        assert '_base_' not in block or re.match(r'# my_configs/\S+\.py\n', block), block


def shorten(cfg: Config) -> None:
    """Makes a run of two iterations of two images of 64x64 pixels and one validation, without files."""
    pipeline = cfg.train_dataloader.dataset.pipeline
    crops = [step for step in pipeline if step['type'] == 'RandomCrop']
    size = cfg.model.data_preprocessor.get('size')
    assert size is None or all(tuple(crop['crop_size']) == tuple(size) for crop in crops)
    for step in crops:
        step['crop_size'] = (64, 64)
    if size is not None:
        cfg.model.data_preprocessor.size = (64, 64)
    for phase in ('train', 'val', 'test'):
        loader = cfg[f'{phase}_dataloader']
        loader.update(batch_size=2 if phase == 'train' else 1, num_workers=0, persistent_workers=False)
    by_iterations = 'max_iters' in cfg.train_cfg
    cfg.train_cfg.update(dict(max_iters=2, val_interval=2) if by_iterations else dict(max_epochs=1))
    sampler = cfg.train_dataloader.sampler
    if 'samples_per_epoch' in sampler:
        sampler.samples_per_epoch = 4
    elif not by_iterations:
        cfg.train_dataloader.dataset.indices = 4
    cfg.default_hooks.update(checkpoint=None, report=None)
    cfg.visualizer = dict(type='SegLocalVisualizer')  # no other backend is installed
    if 'encoder_weights' in cfg.model:
        cfg.model.encoder_weights = None  # they would be downloaded


@pytest.mark.slow
@pytest.mark.usefixtures('weights')
@pytest.mark.parametrize(('page', 'name'), snippets(), ids=lambda value: getattr(value, 'name', value))
def test_configs_of_the_pages_check_and_train(page, name, workspace, data_of, tmp_path, monkeypatch):
    block = next(block for block in blocks(page, 'python') if block.startswith(f'# {name}\n'))
    assert (workspace / name).read_text() == block, f'{name} differs between two pages'
    monkeypatch.chdir(workspace)
    cfg = Config.fromfile(name)
    cfg.data_root = str(data_of(cfg))
    if 'max_iters' in cfg.train_cfg:
        assert max(step.get('end', step.get('total_steps')) for step in cfg.param_scheduler) == cfg.train_cfg.max_iters
    check_config(complete_config(cfg), ('train', 'val', 'test'))
    shorten(cfg)
    cfg.work_dir, cfg.experiment_name = str(tmp_path), f'{tmp_path.name}_{name}'
    runner = RUNNERS.build(cfg)
    runner.train()
    losses = runner.message_hub.get_scalar('train/loss')
    assert runner.iter == 2
    assert np.isfinite(losses.data[0]).all()
    assert 'val/mIoU' in runner.message_hub.log_scalars


def test_the_frozen_backbone_of_the_recipe_equals_its_schedule():
    block = next(block for block in blocks(REPO / 'docs/training_recipe.md', 'python') if 'frozen_backbone' in block)
    fields: dict = {}
    exec(block, {}, fields)
    schedule = Config.fromfile(REPO / 'configs/_base_/schedules/schedule_roofs_60e_freeze_20e.py')
    # The schedule does not set the learning rate of the backbone, and follows another score.
    fields['param_scheduler'][0]['monitor'] = 'mean_tile_IoU'
    assert fields.pop('optim_wrapper')['paramwise_cfg']['custom_keys']['backbone'] == dict(lr_mult=0.1)
    for name, hook in fields.pop('default_hooks').items():
        assert {**schedule.default_hooks[name], **hook} == schedule.default_hooks[name]
    assert fields == {name: schedule[name] for name in ('find_unused_parameters', 'param_scheduler')}


def test_sizes_on_the_results_page_are_those_of_the_family():
    """tests/test_configs.py compares those of the family with the networks."""
    rows = re.findall(r'^\| S\d \| .*\|$', (REPO / 'docs/results.md').read_text(), re.MULTILINE)
    family = (REPO / 'configs/lale/README.md').read_text()
    assert len(rows) == 4
    assert [row for row in rows if row not in family] == []


@pytest.mark.parametrize(
    ('page', 'heading', 'count'), [(README, 'Results', 1), (REPO / 'docs/results.md', 'Real imagery: aerial chips', 14)]
)
def test_scores_are_those_of_the_measurements(page, heading, count):
    """The scores (two decimals) of each row are in one line of a file in benchmarks/results."""
    score = r'(?<!\S)\d+\.\d\d(?!\S)'
    files = (REPO / 'benchmarks/results').glob('aerial_chips_*.md')
    measured = [set(re.findall(score, line)) for path in files for line in path.read_text().splitlines()]
    section = re.search(rf'^## {heading}$(.*?)^## ', page.read_text(), re.MULTILINE | re.DOTALL).group(1)
    rows = [set(re.findall(score, row)) for row in re.findall(r'^\|.*', section, re.MULTILINE)]
    rows = [row for row in rows if row]
    assert len(rows) == count
    assert [row for row in rows if not any(row <= line for line in measured)] == []


def test_versions_on_the_page_are_those_of_the_constraints():
    page = (REPO / 'docs' / 'environment.md').read_text()
    named = dict(re.findall(r'^\| ([\w-]+) \| (\d[\d.]+) \|$', page, re.MULTILINE))
    lines = (REPO / 'requirements' / 'constraints.txt').read_text().splitlines()
    pinned = dict(line.split(';')[0].strip().split('==') for line in lines if '==' in line and not line.startswith('#'))
    assert len(named) >= 6
    assert named == {name: pinned.get(name) for name in named}


def test_accepted_versions_are_those_that_are_checked():
    from lale_mmseg.compat import OPTIONAL, REQUIRED

    page = (REPO / 'docs' / 'environment.md').read_text()
    named = dict(re.findall(r'^\| `(\w+)`(?: \(optional\))? \| ([\d.]+) \|', page, re.MULTILINE))
    assert named == {name: lowest for name, (lowest, _) in {**REQUIRED, **OPTIONAL}.items()}
