"""Who may import whom: the rooms of the code, read from its imports."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.support import REPO

PACKAGE = 'lale_mmseg'
#: Rooms whose parts are registered.
ROOMS = {'datasets', 'engine', 'evaluation', 'inference', 'models'}
#: What the modules of each room may import of ours, beside their own room; `errors` and `files` nothing.
ALLOWED = {
    '__init__': set(),
    'errors': set(),
    'files': set(),
    'compat': set(),
    'metainfo': {'errors'},
    'register': {*ROOMS, 'compat'},
    'models': {'errors', 'files'},
    'datasets': {'errors', 'metainfo'},
    'evaluation': {'errors', 'files', 'metainfo', '__init__'},
    'engine': {'errors', 'files', 'compat', 'evaluation', 'metainfo', '__init__'},
    'inference': {'errors', 'files', 'models', 'engine', '__init__'},
    'export': {'errors', 'models', 'engine', '__init__'},
    'cli': {*ROOMS, 'compat', 'errors', 'files', 'metainfo', 'register'},
}
#: The same inside models.
MODEL_ROOMS = {
    'layers': set(),
    'attention': {'layers'},
    'backbones': {'attention', 'external', 'feature_cache', 'layers'},
    'decode_heads': {'attention', 'layers'},
    'losses': set(),
    'segmentors': {'decode_heads', 'external', 'layers'},
    'data_preprocessor': set(),
    'external': set(),
    'feature_cache': {'external'},
}


def modules_imported(path: Path) -> set[str]:
    """Dotted names of all modules that a file imports, relative ones made absolute."""
    package = [*path.relative_to(REPO).with_suffix('').parts][:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = '.'.join([*base, *([node.module] if node.module else [])])
            found |= {module, *(f'{module}.{alias.name}' for alias in node.names)}
    return found


def room_of(parts: list[str], depth: int) -> str:
    return parts[depth] if len(parts) > depth else '__init__'


def ours(path: Path) -> set[str]:
    """First-level rooms of the package that a file imports."""
    names = [name.split('.') for name in modules_imported(path) if name.split('.')[0] == PACKAGE]
    known = {p.stem for p in (REPO / PACKAGE).iterdir()}
    return {parts[1] if len(parts) > 1 and parts[1] in known else '__init__' for parts in names if parts[1:]}


def test_rooms_of_the_package():
    for path in (REPO / PACKAGE).rglob('*.py'):
        parts = list(path.relative_to(REPO / PACKAGE).with_suffix('').parts)
        room = parts[0]
        foreign = ours(path) - ALLOWED[room] - {room}
        assert not foreign, f'{path.relative_to(REPO)} imports {sorted(foreign)}'


def test_rooms_inside_models():
    for path in (REPO / PACKAGE / 'models').rglob('*.py'):
        parts = list(path.relative_to(REPO / PACKAGE / 'models').with_suffix('').parts)
        if len(parts) == 1 and parts[0] == '__init__':
            continue
        names = [n.split('.') for n in modules_imported(path) if n.startswith(f'{PACKAGE}.models.')]
        foreign = {parts[2] for parts in names} & set(MODEL_ROOMS) - MODEL_ROOMS[parts[0]] - {parts[0]}
        assert not foreign, f'{path.relative_to(REPO)} imports {sorted(foreign)}'


def test_the_package_never_imports_scripts():
    for path in (REPO / PACKAGE).rglob('*.py'):
        roots = {name.split('.')[0] for name in modules_imported(path)}
        assert not roots & {'tools', 'configs', 'data_prep', 'tests', 'benchmarks'}, path


def test_data_prep_and_metainfo_do_without_torch():
    for path in [*(REPO / 'data_prep').rglob('*.py'), *(REPO / PACKAGE / 'metainfo').rglob('*.py')]:
        roots = {name.split('.')[0] for name in modules_imported(path)}
        assert not roots & {'torch', 'torchvision', 'mmcv', 'mmengine', 'mmseg'}, path
    for path in (REPO / 'data_prep').rglob('*.py'):
        assert ours(path) <= {'metainfo', 'errors', 'files', '__init__'}, path


def test_only_compat_reaches_into_the_framework():
    """Assigning to attributes of what was imported is for compat.py, where each one has its reason."""
    for path in (REPO / PACKAGE).rglob('*.py'):
        if path.name != 'compat.py':
            tree = ast.parse(path.read_text())
            imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
            imported = {(alias.asname or alias.name).split('.')[0] for node in imports for alias in node.names}
            assert not imported & set(assigned_owners(tree)), path


def assigned_owners(tree: ast.AST) -> Iterator[str]:
    """Names whose attributes or items are assigned, such as `a` of `a.b.c = 1`, or of `setattr(a.b, 'c', 1)`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AugAssign | ast.Delete):
            targets = [node.target] if isinstance(node, ast.AugAssign) else node.targets
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ('setattr', 'delattr'):
            targets = [ast.Attribute(node.args[0])]
        else:
            continue
        for target in targets:
            inner: ast.AST = target
            while isinstance(inner, ast.Attribute | ast.Subscript):
                inner = inner.value
            if inner is not target and isinstance(inner, ast.Name):
                yield inner.id
