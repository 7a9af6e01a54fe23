import re

import pytest

from lale_mmseg.errors import DataError
from lale_mmseg.metainfo.layout import find_layout, list_pairs


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b'x')


def stems(root, split='train', **options):
    return [pair.stem for pair in list_pairs(find_layout(root, split), **options)]


def test_split_by_text_file_keeps_its_order(tmp_path):
    touch(tmp_path, 'images/a.jpg', 'images/b.tif', 'images/c.jpg', 'masks/a.png', 'masks/b.png', 'masks/c.png')
    (tmp_path / 'train.txt').write_text('# chosen by hand\nc\n\nb.tif\n')
    pairs = list_pairs(find_layout(tmp_path, 'train'))
    assert [(pair.image.name, pair.mask.name) for pair in pairs] == [('c.jpg', 'c.png'), ('b.tif', 'b.png')]


def test_split_by_folder_and_by_folder_below_images(tmp_path):
    touch(tmp_path / 'one', 'train/images/b.png', 'train/images/a.png', 'train/masks/a.png', 'train/masks/b.png')
    touch(tmp_path / 'two', 'images/train/x/a.PNG', 'masks/train/x/a.png', 'images/val/z.png')
    assert stems(tmp_path / 'one') == ['a', 'b']
    assert stems(tmp_path / 'two') == ['x/a']


def test_dots_in_a_stem_are_part_of_it(tmp_path):
    touch(tmp_path, 'train/images/tile_1.5m.png', 'train/masks/tile_1.5m.png')
    assert stems(tmp_path) == ['tile_1.5m']


def test_hidden_and_other_files_are_no_images(tmp_path):
    touch(tmp_path, 'train/images/a.png', 'train/images/._a.png', 'train/images/a.xml', 'train/masks/a.png')
    assert stems(tmp_path) == ['a']


@pytest.mark.parametrize(
    ('files', 'listed', 'message'),
    [
        (['images/a.png', 'masks/a.png'], 'a\nb\n', 'no image in .*images for b'),
        (['images/a.png', 'masks/b.png'], 'a\n', 'no mask in .*masks for a'),
        (['images/a.png', 'masks/a.png'], 'a\na.png\n', "line 2: 'a' is already in line 1"),
        (['images/a.png', 'images/a.jpg', 'masks/a.png'], 'a\n', 'a.jpg and a.png have the same stem'),
        (['images/a.png', 'masks/a.png'], '# nothing\n', 'the split is empty'),
    ],
)
def test_bad_splits_are_named(tmp_path, files, listed, message):
    touch(tmp_path, *files)
    (tmp_path / 'train.txt').write_text(listed)
    with pytest.raises(DataError, match=message):
        stems(tmp_path)


def test_an_image_without_mask_is_an_error(tmp_path):
    touch(tmp_path, 'train/images/a.png')
    with pytest.raises(DataError, match='no mask'):
        stems(tmp_path)


def test_long_lists_are_cut(tmp_path):
    touch(tmp_path, 'train/masks/z.png', *(f'train/images/{i}.png' for i in range(9)))
    with pytest.raises(DataError, match=re.escape('for 0, 1, 2, 3, 4 and 4 more')):
        stems(tmp_path)


def test_a_missing_split_lists_the_known_layouts(tmp_path):
    with pytest.raises(DataError, match=r"no split 'val'; looked for val\.txt beside images/, for val/images/ and"):
        find_layout(tmp_path, 'val')
