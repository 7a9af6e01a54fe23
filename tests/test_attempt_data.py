"""Scores of other data, labels or classes are not ranked silently; published figures stand beside their own data."""

import re
import shutil

import pytest

from lale_mmseg.errors import ConfigError
from tests.attempts import VAL_TILES, attempt, change, comparing, rows, write_split  # noqa: F401
from tests.support import REPO


def test_published_figures_are_attributed(compare, tmp_path):
    tiles = ('austin1', 'austin6', 'austin11', 'austin16', 'austin21', 'austin26')
    said, content = compare(attempt(tmp_path / 'a', [50.0, 51.0, 52.0], tiles=tiles, side=1024), '--published')
    table = rows((tmp_path / 'out' / 'attempts.md').read_text())
    assert table['[published] DeepLabV3+, ResNet-34 (ImageNet)'][:9] == [
        '-',
        '77.2',
        '-',
        '-',
        '80.2',
        '89.0',
        '-',
        '-',
        '-',
    ]
    assert '[published]: figures of the authors of few-shot roofs under their recipe, not measured here' in said
    assert len(content['published']) == 5
    assert len(content['attempts']) == 1
    assert '[published] U-Net from scratch' in said


def test_published_figures_stand_beside_scores_of_their_data_only(compare, tmp_path):
    few = attempt(tmp_path / 'few', [50.0] * 3, side=1024)
    small = attempt(tmp_path / 'small', [50.0] * 3, tiles=[f'austin{number}' for number in range(1, 7)])
    other = attempt(tmp_path / 'other', [50.0] * 3)
    change(other / 'val' / 'metrics.json', source=None)
    for folder, found in (
        (few, 'was validated on 3 images of 3145728 pixels'),
        (small, 'was validated on 6 images of 24576 pixels'),
        (other, 'was validated on InriaDataset, protocol none'),
    ):
        with pytest.raises(ConfigError, match=f'--published: {folder.name} .* {found}.*; 6 crops of 1024x1024 pixels'):
            compare(folder, '--published')
    assert not (tmp_path / 'out').exists()


def test_published_figures_do_not_stand_beside_crops_of_ones_own(compare, tmp_path):
    """Of a validation or a test, as the manifest of the crops says."""
    tiles = ('austin1', 'austin6', 'austin11', 'austin16', 'austin21', 'austin26')
    folder = attempt(tmp_path / 'a', [50.0], tiles=tiles, side=1024, test=1)
    source = dict(city='inria', protocol='few-shot')
    message = r'--published: a .* was {} on crops that were prepared otherwise than the published ones \(manifest\.json'
    change(folder / 'val' / 'metrics.json', source=dict(source, split='val', published=False))
    with pytest.raises(ConfigError, match=message.format('validated')):
        compare(folder, '--published')
    change(folder / 'val' / 'metrics.json', source=dict(source, split='val', published=True))
    with pytest.raises(ConfigError, match='was tested on 2 images'):
        compare(folder, '--published')
    shutil.rmtree(folder / 'test')
    write_split(folder / 'test', [f'austin{number}' for number in range(31, 37)], 1, 'test', 1024)
    compare(folder, '--published')
    change(folder / 'test' / 'metrics.json', source=dict(source, split='test', published=False))
    with pytest.raises(ConfigError, match=message.format('tested')):
        compare(folder, '--published')


def test_other_labels_under_one_path_are_said_first(compare, tmp_path):
    a, b = attempt(tmp_path / 'a', [50.0] * 3), attempt(tmp_path / 'b', [60.0] * 3, lr=0.5)
    said, content = compare(a, b)
    assert (content['comparable'], content['data_differences']) == (True, [])
    assert 'NOT COMPARABLE' not in said
    path = b / 'val' / 'per_tile.csv'
    table = [line.split(',') for line in path.read_text().splitlines()]
    place = table[0].index('label_pixels')
    line = next(line for line in table if line[0] == 'austin6')
    before, line[place] = line[place], '7'
    path.write_text('\n'.join(map(','.join, table)) + '\n')
    said, content = compare(a, b)
    expected = (
        f'validation data differ: building in the labels of austin6: 7 of 4096 pixels (b); {before} of 4096 pixels (a)'
    )
    assert content['data_differences'] == [expected]
    assert content['comparable'] is False
    assert said.splitlines()[0].startswith('NOT COMPARABLE: the scores are of different or unknown data')
    assert said.splitlines()[1] == expected
    assert (tmp_path / 'out' / 'attempts.md').read_text().splitlines()[2].startswith('**NOT COMPARABLE')
    # The same recipes otherwise: the data are not among what agrees.
    (b / 'roofs.py').write_text((a / 'roofs.py').read_text())
    agreed = next(line for line in compare(a, b)[0].splitlines() if line.startswith('recipes agree in'))
    assert 'optimizer' in agreed
    assert 'data, protocol and split' not in agreed


@pytest.mark.parametrize(
    ('fields', 'line'),
    [
        (dict(source=dict(city='inria', protocol='full')), 'protocol: full (b); few-shot (a)'),
        (dict(source=dict(city='potsdam', protocol='few-shot')), 'data set: potsdam (b); inria (a)'),
        (dict(classes=['background', 'roof']), 'classes: background, roof (b); background, building (a)'),
        (dict(num_pixels=1), 'num_pixels: 1 (b); 12288 (a)'),
    ],
)
def test_other_data_are_not_ranked_silently(compare, tmp_path, fields, line):
    a, b = attempt(tmp_path / 'a', [50.0] * 3), attempt(tmp_path / 'b', [60.0] * 3)
    change(b / 'val' / 'metrics.json', **fields)
    assert compare(a, b)[1]['data_differences'] == [f'validation data differ: {line}']


def test_scores_of_other_classes_are_not_ranked_silently(compare, tmp_path):
    a = attempt(tmp_path / 'a', [50.0] * 3, test=1, reads=1)
    b = attempt(tmp_path / 'b', [60.0] * 3, test=1, reads=1)
    change(b / 'test' / 'metrics.json', score_classes=['background', 'building'], ignore_index=0)
    assert compare(a, b)[1]['data_differences'] == [
        'test scores differ: averaged classes: background, building (b); building (a)',
        'test scores differ: ignored label: 0 (b); 255 (a)',
    ]


def test_unknown_data_are_not_ranked_silently(compare, tmp_path):
    """A test that is not there is no unknown one."""
    a, b = attempt(tmp_path / 'a', [50.0] * 3, test=1, reads=1), attempt(tmp_path / 'b', [60.0] * 3)
    (b / 'val' / 'metrics.json').unlink()
    said, content = compare(a, b)
    assert content['data_differences'] == ['validation data are not known, as there is no metrics.json of them: b']
    agreed = next(line for line in said.splitlines() if line.startswith('recipes agree in'))
    assert 'data, protocol and split' not in agreed


def test_a_part_of_the_validation_and_other_crops_are_said(compare, tmp_path):
    a = attempt(tmp_path / 'a', [50.0] * 3)
    source = dict(city='inria', protocol='few-shot', split='val', missing_tiles=['austin16'], published=False)
    change(a / 'val' / 'metrics.json', source=source)
    assert compare(a)[1]['attempts'][0]['notes'] == [
        'validated without the tiles austin16',
        'validated on crops that were prepared otherwise than the published ones',
    ]


def test_a_validation_is_no_test(compare, tmp_path):
    """By what the run says of its split, or by images and labels that are those of the validation."""
    a = attempt(tmp_path / 'a', [50.0] * 3, test=1)
    run = dict(checkpoint='a.pth', epoch=1, iter=100, mode='whole', views='none')
    change(a / 'test' / 'metrics.json', source=None, run=dict(run, split='val'))
    _, content = compare(a)
    assert content['attempts'][0]['test'] is None
    assert "test/metrics.json is of split 'val', so it is no test" in content['attempts'][0]['notes']
    b = attempt(tmp_path / 'b', [50.0] * 3)
    write_split(b / 'test', VAL_TILES[1:], 1, 'test')
    _, content = compare(b)
    assert 'TEST has 2 images of VAL, by name and labels: austin6, austin11' in content['attempts'][0]['notes']


def test_other_images_and_other_tests_are_not_ranked_silently(compare, tmp_path):
    a = attempt(tmp_path / 'a', [50.0] * 3, test=1, reads=1)
    b = attempt(tmp_path / 'b', [60.0] * 3, tiles=('austin6', 'austin11', 'austin16'), test=1, reads=1)
    change(b / 'test' / 'metrics.json', num_images=5)
    assert compare(a, b)[1]['data_differences'] == [
        'validation data differ: images: austin11 austin16 austin6 (b); austin1 austin11 austin6 (a)',
        'test data differ: num_images: 5 (b); 2 (a)',
    ]


def test_published_figures_are_the_same_everywhere(compare):
    """The tool, the page of the protocol and the page of the configs."""
    from _attempt_tables import PUBLISHED

    page = (REPO / 'docs' / 'few_shot.md').read_text()
    table = re.findall(r'^\| (\d) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$', page, re.MULTILINE)
    assert [tuple(map(float, row)) for row in table] == [
        (number, *scores) for number, (_, *scores) in enumerate(PUBLISHED, 1)
    ]
    page = (REPO / 'configs' / 'buildings' / 'README.md').read_text().split('## Published results')[1]
    table = re.findall(r'^\| (\d) \| .+ \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$', page, re.MULTILINE)
    assert [(int(number), *(round(100 * float(score), 4) for score in scores)) for number, *scores in table] == [
        (number, test_iou, test_f1, val_iou) for number, (_, val_iou, test_iou, test_f1) in enumerate(PUBLISHED, 1)
    ]
