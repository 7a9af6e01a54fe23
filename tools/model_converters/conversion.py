"""Conversion of published checkpoints: reading, renaming, comparing, reporting, writing.

A converter is a `Family`: tables of rules from published names and tensors to ours. The network decides what is used,
unused and missing, so that no weight is silently dropped or left random.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from torch import Tensor, nn

import lale_mmseg.register  # noqa: F401
from lale_mmseg.engine.checkpoint import read_plain
from lale_mmseg.errors import CheckpointError, ConfigError
from lale_mmseg.files import write_atomic

#: Entries that may contain the weights, possibly nested. The first one is used: averaged weights before the last ones,
#: as timm does.
ENTRIES = ('state_dict_ema', 'model_ema', 'state_dict', 'model')
#: Parts of a segmentor in the names of its weights.
_HEADS = re.compile(r'^(decode_head|auxiliary_head)\.')
_PREFIXES = re.compile(r'^((module|backbone)\.)+')
_CLASSIFIER = re.compile(r'^(head|classifier)\w*\.')
_COUNTER = '.num_batches_tracked'
_SHOWN = 5

#: A part of a checkpoint: name to the published name and the tensor.
Part = dict[str, tuple[str, Tensor]]


@dataclass(frozen=True)
class Names:
    """Rules from published names and tensors of one part of the network to ours.

    Args:
        rules: (regular expression, replacement), applied to each published name in order.
        matrices: Regular expression of our names whose published 1x1 kernel (out, in, 1, 1) is a matrix (out, in) here.
        unused: (regular expression of published names, reason why there is no such weight here).
    """

    rules: Sequence[tuple[str, str]] = ()
    matrices: str | None = None
    unused: Sequence[tuple[str, str]] = ()

    def tensor(self, ours: str, value: Tensor) -> Tensor:
        """Our form of a published tensor."""
        if self.matrices and value.ndim == 4 and value.shape[2:] == (1, 1) and re.search(self.matrices, ours):
            value = value.flatten(1)  # (out, in)
        # A copy: torch would save a view of a larger tensor with all of it.
        return value.detach().clone(memory_format=torch.contiguous_format)

    def why_unused(self, name: str) -> str:
        """The reason why a published name is not used."""
        reasons = [reason for pattern, reason in self.unused if re.search(pattern, name)]
        return reasons[0] if reasons else 'classifier' if _CLASSIFIER.match(name) else 'no such weight here'


@dataclass(frozen=True)
class Head:
    """A published decode head that has other names here.

    Args:
        sign: A published name, without `decode_head.`, that only this head has.
        names: Its rules.
        config: Makes the config of our head from its weights under our names and the `out_channels` of the backbone.
    """

    sign: str
    names: Names
    config: Callable[[Mapping[str, Tensor], Sequence[int]], dict]


@dataclass(frozen=True)
class Family:
    """A family of published backbones.

    Args:
        backbone: Registered name of our backbone.
        archs: Its table of sizes.
        stem: Our name of the first convolution's weight, whose inputs are the bands.
        names: Rules of the backbone.
        heads: Published heads with other names; the first that matches is used, other heads keep their names.
        parts: (regular expression, replacement) for networks that are not segmentors of mmsegmentation; they put
            `decode_head.` before names of the head and nothing before those of the backbone.
    """

    backbone: str
    archs: Mapping[str, Mapping[str, Any]]
    stem: str
    names: Names
    heads: Sequence[Head] = ()
    parts: Sequence[tuple[str, str]] = ()


@dataclass
class Conversion:
    """Result of a conversion; names of segmentors start with `backbone.`, `decode_head.` or `auxiliary_head.`.

    Attributes:
        arch: Size of the backbone.
        state: Our weights.
        used: Our name to the published one.
        unused: Published name to the reason.
        missing: Our names without a published weight.
        reshaped: Our name to the found and the expected shape.
    """

    arch: str = ''
    state: dict[str, Tensor] = field(default_factory=dict)
    used: dict[str, str] = field(default_factory=dict)
    unused: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    reshaped: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)

    def check(self, what: str) -> None:
        """Raises CheckpointError for missing or reshaped weights; `what` starts the message."""
        problems = []
        if self.missing:
            problems.append(f'{len(self.missing)} missing: {_first(self.missing)}')
        if self.reshaped:
            shapes = [f'{name}: found {found}, expected {wanted}' for name, (found, wanted) in self.reshaped.items()]
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
            *(f'  {ours}: found {found}, expected {wanted}' for ours, (found, wanted) in self.reshaped.items()),
        ]


def find_state(
    content: Mapping[str, Any], source: str | Path, entry: str | None = None
) -> tuple[dict[str, Any], str, list[str]]:
    """Finds the weights in a checkpoint.

    Args:
        content: The checkpoint: a state dict, or a mapping with one under one of `ENTRIES`, possibly nested.
        source: Its name for messages.
        entry: The entry to use.

    Returns:
        The state dict; the dotted path of its entry, empty for the checkpoint itself; and the paths of other entries.

    Raises:
        CheckpointError: There are no weights, or none under `entry`.
    """
    where: list[str] = []
    passed_over: list[str] = []
    while found := [name for name in ENTRIES if isinstance(content.get(name), Mapping)]:
        chosen = entry if entry in found else found[0]
        passed_over += ['.'.join([*where, name]) for name in found if name != chosen]
        where.append(chosen)
        content = content[chosen]
    if entry is not None and entry not in where:
        raise CheckpointError(
            f'{source}: no weights under {entry!r}; found {".".join(where) or "a plain state dict"!r}'
        )
    if not any(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(
            f'{source}: no weights; expected a state dict at the top or under {", ".join(ENTRIES)}, found the entries '
            f'{_first([str(name) for name in content]) or "none"}'
        )
    return {str(name): value for name, value in content.items()}, '.'.join(where), passed_over


def convert(
    state: Mapping[str, Any], family: Family, source: str | Path = 'checkpoint', arch: str | None = None
) -> Conversion:
    """Converts published weights to ours.

    Args:
        state: Weights by published name, with or without `module.` and `backbone.`.
        family: Their family.
        source: Name of the checkpoint for messages.
        arch: Size; None to recognise it from the shapes.

    Returns:
        Our weights, those of a segmentor if `state` contains heads, and the use of every name. Missing and reshaped
        weights are listed, not raised.

    Raises:
        CheckpointError: There are no weights of this family or of one of its sizes, or two names of one weight.
        ConfigError: `arch` is unknown.
    """
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    parts = _split(tensors, family.parts, source)
    backbone = _renamed(parts.pop('backbone'), family.names, source)
    arch = recognise(backbone, family, source) if arch is None else arch.lower()
    if arch not in family.archs:
        raise ConfigError(f'--arch {arch}: expected one of {", ".join(family.archs)}')
    bands = backbone[family.stem][1].shape[1:2] if family.stem in backbone else ()
    model = build_on_meta(dict(type=family.backbone, arch=arch, in_channels=bands[0] if bands else 3))
    result = Conversion(arch)
    result.unused.update({name: 'no tensor' for name, value in state.items() if not isinstance(value, Tensor)})
    _collect(result, backbone, model, family.names, 'backbone.' if parts else '')
    for part, published in parts.items():
        head = next((each for each in family.heads if part == 'decode_head' and each.sign in published), None)
        names = Names() if head is None else head.names
        weights = _renamed(published, names, source)
        own = None
        if head is not None:
            by_name = {ours: value for ours, (_, value) in weights.items()}
            own = build_on_meta(head.config(by_name, model.out_channels))
        _collect(result, weights, own, names, f'{part}.')
    return result


def recognise(weights: Part, family: Family, source: str | Path) -> str:
    """Returns the size whose shapes most weights have.

    Raises:
        CheckpointError: No size has the shapes of more than half of them.
    """
    known = {name: _shapes(build_on_meta(dict(type=family.backbone, arch=name))) for name in family.archs}
    names = {ours for ours in weights if any(ours in shapes for shapes in known.values())}
    if not names:
        published = [theirs for theirs, _ in weights.values()]
        raise CheckpointError(f'{source}: no weights of {family.backbone}; found names such as {_first(published)}')
    matches = {
        size: sum(shapes.get(ours) == tuple(weights[ours][1].shape) for ours in names) for size, shapes in known.items()
    }
    # Sizes that differ in depth alone have the same matches for the shallow one: take the one with the fewest missing.
    best = max(known, key=lambda size: (matches[size], -len(known[size])))
    if 2 * matches[best] <= len(names):
        raise CheckpointError(
            f'{source}: the shapes are of no size of {family.backbone}; the closest, {best}, has {matches[best]} of '
            f'{len(names)}. If it is one of {", ".join(known)} with other weights, select it with --arch'
        )
    return best


def build_on_meta(config: dict) -> Any:
    """Builds a part without memory for weights, for their names and shapes."""
    init_default_scope('mmseg')
    with torch.device('meta'):
        return MODELS.build(config)


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}


def _split(state: Mapping[str, Tensor], rules: Sequence[tuple[str, str]], source: str | Path) -> dict[str, Part]:
    """Weights of the backbone and of each head by their names in that part."""
    parts: dict[str, Part] = {'backbone': {}}
    for name, value in state.items():
        bare = _PREFIXES.sub('', name)
        for pattern, replacement in rules:
            bare = re.sub(pattern, replacement, bare)
        match = _HEADS.match(bare)
        part = parts.setdefault(match[1] if match else 'backbone', {})
        _add(part, _HEADS.sub('', bare), (name, value), source)
    return parts


def _renamed(part: Part, names: Names, source: str | Path) -> Part:
    """The same part by our names."""
    renamed: Part = {}
    for name, entry in part.items():
        for pattern, replacement in names.rules:
            name = re.sub(pattern, replacement, name)
        _add(renamed, name, entry, source)
    return renamed


def _add(part: Part, name: str, entry: tuple[str, Tensor], source: str | Path) -> None:
    if name in part:
        raise CheckpointError(f'{source}: {part[name][0]!r} and {entry[0]!r} are the same weight, {name!r}')
    part[name] = entry


def _collect(result: Conversion, weights: Part, own: nn.Module | None, names: Names, prefix: str) -> None:
    """Adds a part to the result; `own` is our part, None to keep all names and shapes."""
    expected = None if own is None else _shapes(own)
    for ours, (theirs, value) in weights.items():
        if expected is not None and ours not in expected:
            result.unused[theirs] = names.why_unused(_HEADS.sub('', _PREFIXES.sub('', theirs)))
            continue
        value = names.tensor(ours, value)
        result.used[prefix + ours] = theirs
        result.state[prefix + ours] = value
        if expected is not None and tuple(value.shape) != expected[ours]:
            result.reshaped[prefix + ours] = (tuple(value.shape), expected[ours])
    # Files of older releases have no counters of batch norm.
    result.missing += [prefix + name for name in expected or () if name not in weights and not name.endswith(_COUNTER)]


def _first(items: Sequence[str], separator: str = ', ') -> str:
    more = f' and {len(items) - _SHOWN} more' if len(items) > _SHOWN else ''
    return separator.join(items[:_SHOWN]) + more


def parse_args(family: Family, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line of a converter."""
    parser = argparse.ArgumentParser(description=f'Converts published weights of {family.backbone} and its segmentors.')
    parser.add_argument('official', help='published checkpoint, a local file')
    parser.add_argument('out', help='output file')
    parser.add_argument('--arch', help=f'size, one of {", ".join(family.archs)} (default: recognised from the shapes)')
    parser.add_argument('--entry', choices=ENTRIES, help='entry with the weights (default: the first of these)')
    parser.add_argument('--report', metavar='FILE', help='also write the report as JSON')
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='read a checkpoint that contains more than weights and plain data; this may run code of its author',
    )
    return parser.parse_args(argv)


def run_converter(family: Family, args: argparse.Namespace) -> None:
    """Converts a file and prints the report; writes nothing unless the network is complete.

    Raises:
        CheckpointError: The file cannot be read or is not trusted, or its weights do not match the network.
        ConfigError: `out` is the input file.
    """
    official, out = Path(args.official), Path(args.out)
    if official.resolve() in [Path(path).resolve() for path in (out, args.report) if path]:
        raise ConfigError(f'{official}: is the input; choose another output file')
    state, where, passed_over = find_state(read_plain(official, trust=args.trust_checkpoint), official, args.entry)
    result = convert(state, family, official, args.arch)
    title = f'{family.backbone} {result.arch}'
    print(f'{official}{f" ({where})" if where else ""}: {title}')
    if passed_over:
        print(f'not used: {", ".join(passed_over)}')
    sys.stdout.writelines(f'{line}\n' for line in result.lines())
    result.check(f'{official}: does not match {title}')
    buffer = io.BytesIO()
    torch.save(result.state, buffer)
    write_atomic(out, buffer.getvalue())
    if args.report:
        report: dict[str, Any] = dict(
            source=str(official), entry=where, passed_over=passed_over, backbone=family.backbone
        )
        report |= dict(arch=result.arch, used=result.used, unused=result.unused, missing=result.missing)
        write_atomic(args.report, json.dumps(report, indent=2) + '\n')
    whole = family.stem not in result.state
    prefix = ", prefix='backbone.'" if whole else ''
    print(f"wrote {out}: load it in the backbone by init_cfg=dict(type='Pretrained', checkpoint={str(out)!r}{prefix})")
    if whole:
        print(f'or the whole segmentor by load_from = {str(out)!r}')
