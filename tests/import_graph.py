"""Which modules of a source tree import which others, read from their text.

Imports inside functions and those for type checkers alone count too.
"""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

Graph = Mapping[str, set[str]]


def modules_of(folder: Path) -> dict[str, Path]:
    """The modules of the package in `folder`, by their full names."""
    found = {}
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(module: str, path: Path, known: Mapping[str, Path]) -> set[str]:
    """The modules that the file imports at any depth of its code.

    `from package import name` imports the module `package.name` if `known` has it, otherwise `package`. An import of a
    submodule does not count as one of the packages around it.
    """
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = module.split(".")
            above = parts[: len(parts) - node.level + (path.name == "__init__.py")] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            names = {f"{base}.{alias.name}" for alias in node.names}
            found |= {name if name in known else base for name in names}
    return found


def import_graph(modules: Mapping[str, Path]) -> dict[str, set[str]]:
    """Each module -> those of `modules` that it imports."""
    return {name: imports_of(name, path, modules) & (modules.keys() - {name}) for name, path in modules.items()}


def circles(graph: Graph) -> Iterator[tuple[str, ...]]:
    """The largest sets of modules that import one another, directly or by way of others; each set sorted."""
    reached = {name: _reachable(graph, name) for name in graph}
    done: set[str] = set()
    for name in sorted(graph):
        if name in reached[name] and name not in done:
            circle = {other for other in reached[name] if name in reached[other]}
            done |= circle
            yield tuple(sorted(circle))


def way_around(graph: Graph, circle: tuple[str, ...]) -> str:
    """The shortest chain of imports from the circle's first module back to it, as `a -> b -> a`."""
    start = circle[0]
    ways = [[start]]
    for way in ways:
        for name in sorted(graph[way[-1]]):
            if name == start:
                return " -> ".join([*way, start])
            if name not in way:
                ways.append([*way, name])
    raise ValueError(f"{start} is in no circle")


def _reachable(graph: Graph, start: str) -> set[str]:
    found: set[str] = set()
    left = [start]
    while left:
        for name in graph[left.pop()] - found:
            found.add(name)
            left.append(name)
    return found
