"""Installs lale_mmseg; version bounds live in requirements/, this file only reads them."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent


def requirements(name: str) -> list[str]:
    """The lines of requirements/NAME.txt, without comments."""
    lines = (HERE / 'requirements' / f'{name}.txt').read_text(encoding='utf-8').splitlines()
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith('#')]


def version() -> str:
    """The version that the package states, read without importing it."""
    text = (HERE / 'lale_mmseg' / '__init__.py').read_text(encoding='utf-8')
    match = re.search(r"^__version__ = '([^']+)'$", text, re.MULTILINE)
    assert match is not None
    return match.group(1)


setup(
    name='lale_mmseg',
    version=version(),
    description='Light, fast semantic segmentation of aerial and satellite imagery with MMSegmentation',
    long_description=(HERE / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    packages=find_packages(include=['lale_mmseg', 'lale_mmseg.*']),
    # lale_mmseg/.mim links to configs/ and model-index.yml, where mmengine looks for `_base_ = 'lale_mmseg::...'`.
    package_data={
        'lale_mmseg': [
            f'.mim/{pattern}'
            for pattern in ('model-index.yml', 'configs/*/metafile.yaml', 'configs/*/*.py', 'configs/_base_/*/*.py')
        ]
    },
    entry_points={
        'console_scripts': [
            'lale-train = lale_mmseg.cli.train:command',
            'lale-test = lale_mmseg.cli.test:command',
            'lale-predict = lale_mmseg.cli.predict:command',
        ]
    },
    python_requires='>=3.10',
    install_requires=requirements('runtime'),
    extras_require={
        'stack': requirements('stack'),
        'dev': requirements('dev'),
    },
)
