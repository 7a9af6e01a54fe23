"""What docs/protocols.md says of the protocols is what the metainfo holds and what the tool computes."""

import re

import pytest

from lale_mmseg.errors import ConfigError
from lale_mmseg.evaluation import SegmentationMetric
from lale_mmseg.evaluation.confusion import protocol_rules
from lale_mmseg.metainfo import inria, isprs
from tests.runs import run_in_process
from tests.support import REPO
from tests.test_compare_protocols import MAPS, TOOL, make_root, maps_of, table_rows

PROTOCOLS = {protocol.name: protocol for protocol in isprs.PROTOCOLS}
PAGE = (REPO / 'docs' / 'protocols.md').read_text()


def section(heading: str) -> str:
    return re.search(rf'^## {heading}$(.*?)(?=^## |\Z)', PAGE, re.MULTILINE | re.DOTALL).group(1)


def rows(heading: str) -> list[list[str]]:
    """Cells of the rows of a section's table that start with a protocol's letter."""
    lines = re.findall(r'^\| ([A-F] \|.*) \|$', section(heading), re.MULTILINE)
    return [[cell.strip(' `') for cell in line.split('|')] for line in lines]


def test_rules():
    expected = []
    for name, protocol in PROTOCOLS.items():
        rules = protocol_rules(protocol, isprs.CLASSES)
        labels, predictions = (
            'left out' if left else 'counted' for left in (rules.left_out_labels, rules.left_out_predictions)
        )
        means = {5: 'five', 6: 'six'}[len(rules.averaged)]
        counted = {5: 'five', 6: 'six'}[6 - len(rules.left_out_labels)]
        kinds = [protocol.train_labels, protocol.test_labels]
        expected.append([protocol.letter, name, protocol.title, *kinds, labels, predictions, means, counted])
    assert rows('The four protocols') == expected
    assert ', '.join(isprs.CLASSES[:5]) + ' and clutter' in PAGE
    assert {protocol.letter for protocol in PROTOCOLS.values() if len(protocol.classes) == 5} == {'C'}


def test_tiles():
    expected = []
    for name, protocol in PROTOCOLS.items():
        for data_set, split in protocol.splits.items():
            val = '= test' if split.val == split.test else ' '.join(split.val)
            expected.append([protocol.letter, name, data_set, ' '.join(split.train), val, ' '.join(split.test)])
    assert rows('Tiles') == expected


def test_clean_variants():
    expected = []
    for name, protocol in PROTOCOLS.items():
        for data_set, split in protocol.clean_splits.items():
            assert not set(split.val) & set(split.test)
            if protocol.selects_on_test(data_set):
                sizes = [str(len(split.train)), str(len(split.test))]
                expected.append([protocol.letter, name, data_set, ' '.join(split.val), *sizes])
                assert set(split.train) == set(protocol.splits[data_set].train) - set(split.val)
    found = rows('Protocols that select on their test tiles')
    assert found == expected
    assert {row[0] for row in found} == set('BCD')


def test_inria():
    rules, tiles = [], []
    for protocol in inria.PROTOCOLS:
        found = protocol_rules(protocol, inria.CLASSES)
        assert not found.left_out_labels + found.left_out_predictions
        assert [inria.CLASSES[index] for index in found.averaged] == ['building']
        split = protocol.split('inria')
        sizes = [str(len(getattr(split, name))) for name in ('train', 'val', 'test')]
        rules.append([protocol.letter, protocol.name, protocol.title, *sizes, 'building', 'two'])
        numbers = [
            ' '.join(tile[len('austin') :] for tile in getattr(split, name) if tile.startswith('austin'))
            for name in ('val', 'test')
        ]
        tiles.append([protocol.letter, protocol.name, *numbers])
    assert rows('Inria') == rules + tiles


def test_the_worked_example_is_what_the_tool_prints(tmp_path, monkeypatch, capsys):
    text = section('Why the numbers differ')
    for name, drawn in maps_of(text).items():
        assert drawn.tolist() == MAPS[name].tolist()
    root = make_root(tmp_path)
    options = ['--dataset', 'vaihingen', '--no-boundary']
    run_in_process(TOOL, monkeypatch, root / 'pred', root / 'data', *options)
    printed = table_rows(capsys.readouterr().out)
    for row, words in zip(rows('Why the numbers differ'), printed, strict=True):
        # letter, name, labels, 'n of m' test tiles, then the scores
        assert row[:3] + row[4:] == words[:3] + words[6:]
    numbers = {row[0]: [float(cell) for cell in row[3:7]] for row in rows('Why the numbers differ')}
    assert f'costs {numbers["A"][1] - numbers["B"][1]:.2f} points' in text
    assert f'OA rises by {numbers["D"][3] - numbers["C"][3]:.2f} points' in text
    assert [numbers[letter][0] for letter in 'ABCD'] == [49, 49, 60, 58]


@pytest.mark.parametrize('letter', 'AB')
def test_boundary_scores_under_eroded_labels_are_an_error(letter):
    assert 'under A and B they are an error' in section('Boundary scores')
    with pytest.raises(ConfigError, match='the protocol tests on eroded labels'):
        SegmentationMetric(protocol=letter, boundary_tolerance=3)
