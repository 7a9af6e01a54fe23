"""What the converters of published checkpoints share: reading, renaming, comparing, reporting, writing.

A converter is a `Family`: tables that say how published names and tensors become ours. What the network itself expects
decides what is used, unused and missing, so nothing is lost or left at random unseen.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from torch import Tensor

import lale_mmseg.register  # noqa: F401
from lale_mmseg.engine.checkpoint import read_plain
from lale_mmseg.errors import CheckpointError, ConfigError
from lale_mmseg.files import write_atomic

#: Entries that may hold the weights, also inside one another; of several the first is taken, averaged weights before
#: the last ones, as timm does.
ENTRIES = ('state_dict_ema', 'model_ema', 'state_dict', 'model')
#: Parts of a segmentor in the names of its weights.
_HEADS = re.compile(r'^(decode_head|auxiliary_head)\.')
_PREFIXES = re.compile(r'^((module|backbone)\.)+')
_CLASSIFIER = re.compile(r'^(head|classifier)\w*\.')
_COUNTER = '.num_batches_tracked'
#: A weight as long as its stage is wide, in every block of our backbones: stage, block.
_BLOCK_NORM = re.compile(r'^stages\.(\d+)\.(\d+)\.norm1\.weight$')
_SHOWN = 5


@dataclass(frozen=True)
class Names:
    """How published names and tensors of one part of the network become ours.

    Args:
        rules: (regular expression, replacement), applied to each published name in order.
        matrices: Our names (regular expression) whose published 1x1 kernel (out, in, 1, 1) is a matrix (out, in) here.
        unused: (regular expression of published names, why nothing here has such a weight).
    """

    rules: Sequence[tuple[str, str]] = ()
    matrices: str | None = None
    unused: Sequence[tuple[str, str]] = ()

    def ours(self, name: str) -> str:
        """Our name of a published one."""
        for pattern, replacement in self.rules:
            name = re.sub(pattern, replacement, name)
        return name

    def tensor(self, ours: str, value: Tensor) -> Tensor:
        """Our form of a published tensor."""
        if self.matrices and value.ndim == 4 and value.shape[2:] == (1, 1) and re.search(self.matrices, ours):
            value = value.flatten(1)
        # A copy: what is a view of something larger would be saved with all of it.
        return value.detach().clone(memory_format=torch.contiguous_format)

    def why_unused(self, name: str) -> str:
        """The reason why a published name is not used."""
        for pattern, reason in self.unused:
            if re.search(pattern, name):
                return reason
        return 'classifier' if _CLASSIFIER.match(name) else 'nothing here has this name'


@dataclass(frozen=True)
class Head:
    """A published decode head that is rebuilt here under other names.

    Args:
        sign: Published name, without `decode_head.`, that tells this head from others.
        names: Its names.
        config: From its weights under our names and the settings of the backbone's size, the config of our head.
    """

    sign: str
    names: Names
    config: Callable[[Mapping[str, Tensor], Mapping[str, Any]], dict]


@dataclass(frozen=True)
class Family:
    """A family of published backbones.

    Args:
        backbone: Registered name of our backbone.
        archs: Its sizes: `widths` and `depths`, among others, unless `by_shapes`.
        stem: Our name of the first convolution's weight, whose inputs are the bands.
        names: Names of the backbone.
        heads: The heads it was published with, where ours differ in names, of which the first that fits is taken;
            other heads keep their names.
        parts: (regular expression, replacement) that turn names of a published network that is no segmentor of
            mmsegmentation into those of one, `decode_head.` in front of the head's and nothing in front of the
            backbone's.
        by_shapes: Whether a size is recognised as the one that most weights have the shapes of, instead of by widths
            and depths.
    """

    backbone: str
    archs: Mapping[str, Mapping[str, Any]]
    stem: str
    names: Names
    heads: Sequence[Head] = ()
    parts: Sequence[tuple[str, str]] = ()
    by_shapes: bool = False


@dataclass
class Conversion:
    """What became of a checkpoint; names of segmentors start with `backbone.`, `decode_head.` or `auxiliary_head.`.

    Attributes:
        arch: Size of the backbone.
        state: Our weights.
        used: Our name to the published one.
        unused: Published name to the reason.
        missing: Our names that nothing published fills.
        reshaped: Our name to the shapes found and expected.
    """

    arch: str = ''
    state: dict[str, Tensor] = field(default_factory=dict)
    used: dict[str, str] = field(default_factory=dict)
    unused: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    reshaped: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)

    def check(self, what: str) -> None:
        """Raises CheckpointError for missing weights and other shapes, with the first of each; `what` starts it."""
        problems = []
        if self.missing:
            problems.append(f'{len(self.missing)} missing: {_first(self.missing)}')
        if self.reshaped:
            shapes = [f'{name}: found {found}, expected {due}' for name, (found, due) in self.reshaped.items()]
            problems.append(f'{len(self.reshaped)} of another shape: {_first(shapes, "; ")}')
        if problems:
            raise CheckpointError(f'{what}: {"; ".join(problems)}')

    def lines(self) -> list[str]:
        """The report as text."""
        return [
            f'used: {len(self.used)} (ours <- theirs)',
            *(f'  {ours} <- {theirs}' for ours, theirs in self.used.items()),
            f'unused: {len(self.unused)}',
            *(f'  {theirs}: {reason}' for theirs, reason in self.unused.items()),
            f'missing: {len(self.missing)}',
            *(f'  {ours}' for ours in self.missing),
            f'of another shape: {len(self.reshaped)}',
            *(f'  {ours}: found {found}, expected {due}' for ours, (found, due) in self.reshaped.items()),
        ]


def find_state(
    content: Mapping[str, Any], source: str | Path, entry: str | None = None
) -> tuple[dict[str, Any], str, list[str]]:
    """The weights in a checkpoint.

    Args:
        content: The checkpoint: weights by name, or a mapping with them below `ENTRIES`, also inside one another.
        source: Its name for messages.
        entry: Take this one of `ENTRIES`.

    Returns:
        Everything there by published name; where they were, names joined by dots, empty for the file itself; and the
        entries that were passed over, written likewise.

    Raises:
        CheckpointError: There are none, or not below `entry`.
    """
    where: list[str] = []
    passed_over: list[str] = []
    while found := [name for name in ENTRIES if isinstance(content.get(name), Mapping)]:
        chosen = entry if entry in found else found[0]
        passed_over += ['.'.join([*where, name]) for name in found if name != chosen]
        where.append(chosen)
        content = content[chosen]
    if entry is not None and entry not in where:
        raise CheckpointError(f'{source}: no weights below {entry!r}; they are below {".".join(where) or "none"!r}')
    if not any(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(
            f'{source}: no weights in it; its entries are {_first([str(name) for name in content]) or "none"}. Weights '
            f'by name are due, at the top or below {", ".join(ENTRIES)}'
        )
    return {str(name): value for name, value in content.items()}, '.'.join(where), passed_over


def convert(
    state: Mapping[str, Any], family: Family, source: str | Path = 'checkpoint', arch: str | None = None
) -> Conversion:
    """Turns published weights into ours, without changing them.

    Args:
        state: Weights by published name, with or without `module.` and `backbone.`.
        family: Where they come from.
        source: Name of the checkpoint for messages.
        arch: Size; recognised from the shapes without it.

    Returns:
        Our weights, bare, or those of a segmentor if `state` has heads of one; and what became of every name. Missing
        weights and other shapes are listed, not raised.

    Raises:
        CheckpointError: No weights of this family, no size of it, or two names of one weight.
        ConfigError: `arch` is unknown.
    """
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    parts = _split(tensors, family.parts, source)
    backbone = _renamed(parts.pop('backbone'), family.names, source)
    if arch is None:
        arch = (recognise_by_shapes if family.by_shapes else recognise)(backbone, family, source)
    arch = arch.lower()
    if arch not in family.archs:
        raise ConfigError(f'--arch {arch}: known sizes of {family.backbone} are {", ".join(family.archs)}')
    settings = family.archs[arch]
    bands = backbone[family.stem][1].shape[1:2] if family.stem in backbone else ()
    due = shapes_of(dict(type=family.backbone, arch=arch, in_channels=bands[0] if bands else 3))
    result = Conversion(arch)
    result.unused.update({name: 'no tensor' for name, value in state.items() if not isinstance(value, Tensor)})
    _collect(result, backbone, due, family.names, 'backbone.' if parts else '')
    for part, published in parts.items():
        head = next((each for each in family.heads if part == 'decode_head' and each.sign in published), None)
        if head is None:
            _collect(result, _renamed(published, Names(), source), None, Names(), f'{part}.')
            continue
        weights = _renamed(published, head.names, source)
        config = head.config({ours: value for ours, (_, value) in weights.items()}, settings)
        _collect(result, weights, shapes_of(config), head.names, f'{part}.')
    return result


def recognise(weights: Mapping[str, tuple[str, Tensor]], family: Family, source: str | Path) -> str:
    """The size whose widths and depths the weights have.

    Args:
        weights: By our name, the published name and the tensor.
        family: Where they come from.
        source: Name of the checkpoint for messages.

    Raises:
        CheckpointError: None has them.
    """
    lengths: dict[int, Counter[int]] = {}
    blocks: dict[int, set[int]] = {}
    for ours, (_, value) in weights.items():
        if match := re.match(r'stages\.(\d+)\.(\d+)\.', ours):
            blocks.setdefault(int(match[1]), set()).add(int(match[2]))
        if match := _BLOCK_NORM.match(ours):
            lengths.setdefault(int(match[1]), Counter())[value.numel()] += 1
    if not blocks:
        names = [theirs for theirs, _ in weights.values()]
        raise CheckpointError(f'{source}: no blocks of {family.backbone} in it; its names are {_first(names)}')
    # The most common one, so that a single damaged weight is reported as such.
    widths = tuple(lengths[stage].most_common(1)[0][0] for stage in sorted(lengths))
    depths = tuple(len(blocks[stage]) for stage in sorted(blocks))
    for name, settings in family.archs.items():
        if (tuple(settings['widths']), tuple(settings['depths'])) == (widths, depths):
            return name
    known = '; '.join(f'{name} {s["widths"]} and {s["depths"]}' for name, s in family.archs.items())
    raise CheckpointError(
        f'{source}: no size of {family.backbone} has widths {widths} and depths {depths}; known are {known}. If it is '
        'one of them with weights missing, name it with --arch to see which'
    )


def recognise_by_shapes(weights: Mapping[str, tuple[str, Tensor]], family: Family, source: str | Path) -> str:
    """The size that most weights have the shapes of.

    Args:
        weights: By our name, the published name and the tensor.
        family: Where they come from.
        source: Name of the checkpoint for messages.

    Raises:
        CheckpointError: None has the shapes of more than half of them.
    """
    known = {name: shapes_of(dict(type=family.backbone, arch=name)) for name in family.archs}
    found = {ours: tuple(value.shape) for ours, (_, value) in weights.items() if ours in next(iter(known.values()))}
    if not found:
        names = [theirs for theirs, _ in weights.values()]
        raise CheckpointError(f'{source}: no blocks of {family.backbone} in it; its names are {_first(names)}')
    fitting = {name: sum(found[ours] == shapes[ours] for ours in found) for name, shapes in known.items()}
    best = max(fitting, key=lambda name: fitting[name])
    if 2 * fitting[best] <= len(found):
        raise CheckpointError(
            f'{source}: no size of {family.backbone} has these shapes; {best} has {fitting[best]} of {len(found)}; '
            f'known are {", ".join(known)}. If it is one of them with weights missing, name it with --arch to see which'
        )
    return best


def shapes_of(config: dict) -> dict[str, tuple[int, ...]]:
    """Shapes of all weights and buffers of a part, by name."""
    init_default_scope('mmseg')
    with torch.device('meta'):  # names and shapes, without the memory and time of weights
        part = MODELS.build(config)
    return {name: tuple(value.shape) for name, value in part.state_dict().items()}


def _split(
    state: Mapping[str, Tensor], rules: Sequence[tuple[str, str]], source: str | Path
) -> dict[str, dict[str, tuple[str, Tensor]]]:
    """Weights of the backbone and of each head: by the name without prefixes, the full name and the tensor."""
    parts: dict[str, dict[str, tuple[str, Tensor]]] = {'backbone': {}}
    for name, value in state.items():
        bare = _PREFIXES.sub('', name)
        for pattern, replacement in rules:
            bare = re.sub(pattern, replacement, bare)
        match = _HEADS.match(bare)
        part = parts.setdefault(match[1], {}) if match else parts['backbone']
        bare = bare[match.end() :] if match else bare
        if bare in part:
            raise CheckpointError(f'{source}: {part[bare][0]!r} and {name!r} are one weight')
        part[bare] = (name, value)
    return parts


def _renamed(part: Mapping[str, tuple[str, Tensor]], names: Names, source: str | Path) -> dict[str, tuple[str, Tensor]]:
    """The same by our names."""
    renamed: dict[str, tuple[str, Tensor]] = {}
    for bare, (full, value) in part.items():
        ours = names.ours(bare)
        if ours in renamed:
            raise CheckpointError(f'{source}: {renamed[ours][0]!r} and {full!r} are one weight, {ours!r}')
        renamed[ours] = (full, value)
    return renamed


def _collect(
    result: Conversion,
    weights: Mapping[str, tuple[str, Tensor]],
    due: Mapping[str, tuple[int, ...]] | None,
    names: Names,
    prefix: str,
) -> None:
    """Adds a part to the result; `due` are the shapes of our part, None to take all as it is."""
    for ours, (theirs, value) in weights.items():
        if due is not None and ours not in due:
            result.unused[theirs] = names.why_unused(_HEADS.sub('', _PREFIXES.sub('', theirs)))
            continue
        value = names.tensor(ours, value)
        result.used[prefix + ours] = theirs
        result.state[prefix + ours] = value
        if due is not None and tuple(value.shape) != due[ours]:
            result.reshaped[prefix + ours] = (tuple(value.shape), due[ours])
    # Counters of batch norm, which files of older releases lack, start anew.
    result.missing += [prefix + name for name in due or () if name not in weights and not name.endswith(_COUNTER)]


def _first(items: Sequence[str], separator: str = ', ') -> str:
    more = f' and {len(items) - _SHOWN} more' if len(items) > _SHOWN else ''
    return separator.join(items[:_SHOWN]) + more


def parse_args(family: Family, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Options of the command line of a converter."""
    parser = argparse.ArgumentParser(
        description=f'Turns published weights of {family.backbone}, and of networks on it, into ours.'
    )
    parser.add_argument('official', help='published checkpoint')
    parser.add_argument('out', help='file to write')
    parser.add_argument('--arch', help=f'size, one of {", ".join(family.archs)} (default: recognised from the shapes)')
    parser.add_argument('--entry', choices=ENTRIES, help='which weights, of several (default: the first of these)')
    parser.add_argument('--report', metavar='FILE', help='write the report as JSON, too')
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='read a checkpoint that holds more than weights and plain data; this may run code of its author',
    )
    return parser.parse_args(argv)


def run_converter(family: Family, args: argparse.Namespace) -> None:
    """Converts a file and prints the report; writes nothing unless all weights of the network are there.

    Raises:
        CheckpointError: The file cannot be read or is not trusted, or its weights do not fill the network.
        ConfigError: An option cannot be used.
    """
    if re.match(r'https?://', args.official):
        raise ConfigError(f'{args.official}: a local file is due, not an address; download it first')
    official, out = Path(args.official), Path(args.out)
    for option in (out, *([Path(args.report)] if args.report else [])):
        if option.is_dir() or option.expanduser().resolve() == official.expanduser().resolve():
            raise ConfigError(f'{option}: cannot be written, it is {"a folder" if option.is_dir() else "the input"}')
    state, where, passed_over = find_state(read_plain(official, trust=args.trust_checkpoint), official, args.entry)
    result = convert(state, family, official, args.arch)
    title = f'{family.backbone} {result.arch}'
    print(f'{official}{f" ({where})" if where else ""}: {title}')
    if passed_over:
        print(f'passed over: {", ".join(passed_over)}')
    sys.stdout.writelines(f'{line}\n' for line in result.lines())
    result.check(f'{official}: does not fit {title}')
    buffer = io.BytesIO()
    torch.save(result.state, buffer)
    write_atomic(out, buffer.getvalue())
    if args.report:
        report = dict(
            source=str(official),
            entry=where,
            passed_over=passed_over,
            backbone=family.backbone,
            arch=result.arch,
            used=result.used,
            unused=result.unused,
            missing=result.missing,
        )
        write_atomic(args.report, json.dumps(report, indent=2) + '\n')
    whole = family.stem not in result.state
    prefix = ", prefix='backbone.'" if whole else ''
    print(f"wrote {out}: init_cfg=dict(type='Pretrained', checkpoint={str(out)!r}{prefix}) in the backbone loads it")
    if whole:
        print(f'load_from = {str(out)!r} loads the whole segmentor')
