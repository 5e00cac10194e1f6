"""Public names of packages, found in their source, as Markdown: signature and docstring. Nothing is imported."""

import ast
import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
LONGEST_SIGNATURE = 100
SETTING = "setting"
"""The function that a recipe's fields are made by; its first argument is the default."""

# What Markdown would take for emphasis or HTML. An underscore within a word is none.
_MARK = re.compile(r"<(?=[a-zA-Z/!])|\*(?=\S)|(?<=\S)\*|(?<!\w)_(?=\w)|(?<=\w)_(?!\w)")
_SECTION = re.compile(r"(Args|Returns|Raises|Yields):")
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Definition:
    """Where a public name is defined. node: of its file's tree. after: the statement behind it, which documents a
    constant if it is a text."""

    name: str
    module: str
    file: Path
    node: ast.stmt
    after: ast.stmt | None = None


def module_file(module: str) -> Path | None:
    """The file of a module of this repository."""
    path = ROOT / ("kernels" if module.split(".")[0] == "sparseq_kernels" else ".") / module.replace(".", "/")
    return next((found for found in (path / "__init__.py", path.with_suffix(".py")) if found.is_file()), None)


@cache
def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def public_names(module: str) -> list[str]:
    """The names in the module's `__all__`. ValueError if it has none."""
    file = module_file(module)
    for node in _tree(file).body if file else ():
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    raise ValueError(f"{module} has no __all__")


def find(module: str, name: str) -> Definition:
    """The definition of a name that the module defines or imports. ValueError if there is none."""
    file = module_file(module)
    if file is None:
        raise ValueError(f"{module} is no module of this repository")
    body = list(_statements(_tree(file).body))
    for place, node in enumerate(body):
        if isinstance(node, Function | ast.ClassDef) and node.name == name:
            return Definition(name, module, file, node)
        if name in _targets(node):
            return Definition(name, module, file, node, body[place + 1] if place + 1 < len(body) else None)
        if isinstance(node, ast.ImportFrom):
            for imported in node.names:
                if (imported.asname or imported.name) == name:
                    return find(_absolute(node, module, file), imported.name)
    raise ValueError(f"{module} does not define {name}")


def _targets(node: ast.stmt) -> list[str]:
    """The names that a statement assigns to."""
    if isinstance(node, ast.AnnAssign):
        return [ast.unparse(node.target)]
    targets = node.targets if isinstance(node, ast.Assign) else []
    return [ast.unparse(one) for target in targets for one in getattr(target, "elts", [target])]


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements, and those below `if TYPE_CHECKING` and `with`."""
    for node in body:
        yield node
        if isinstance(node, ast.If | ast.With):
            yield from _statements(node.body)


def _absolute(node: ast.ImportFrom, module: str, file: Path) -> str:
    """The module that is imported from."""
    if not node.level:
        return node.module or ""
    parts = module.split(".")
    parts = parts[: len(parts) - node.level + (file.name == "__init__.py")]
    return ".".join([*parts, *([node.module] if node.module else [])])


def described(definition: Definition, depth: int) -> str:
    """A definition as Markdown, below a heading of `depth` signs."""
    name, node = definition.name, definition.node
    where = definition.file.relative_to(ROOT).as_posix()
    parts = [f"{'#' * depth} {name}", f"`{where}`"]
    if isinstance(node, ast.ClassDef):
        parts += [_code(_class_signature(node, definition.module)), markdown(ast.get_docstring(node)), _members(node)]
    elif isinstance(node, Function):
        parts += [_code(_signature(name, _with_values(definition.module, node))), markdown(ast.get_docstring(node))]
    else:
        parts += [_code(_assigned(definition)), _constant_text(definition)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _code(text: str) -> str:
    return f"```python\n{text}\n```"


def _assigned(definition: Definition) -> str:
    """A constant as its file has it, where that is one line."""
    text = ast.get_source_segment(definition.file.read_text(encoding="utf-8"), definition.node) or ""
    return text if 0 < len(text) <= LONGEST_SIGNATURE and "\n" not in text else f"{definition.name} = ..."


def _constant_text(definition: Definition) -> str:
    """The text or the comment that documents a constant."""
    after = definition.after
    if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str):
        return markdown(after.value.value)
    lines = definition.file.read_text(encoding="utf-8").splitlines()
    found: list[str] = []
    for line in reversed(lines[: definition.node.lineno - 1]):
        if not line.startswith("#"):
            break
        found.insert(0, line.removeprefix("#").strip())
    return markdown(" ".join(found))


def _with_values(module: str, node: Function) -> Function:
    """The function with the values of defaults that are named constants."""
    node = copy.deepcopy(node)
    for defaults in (node.args.defaults, node.args.kw_defaults):
        for place, default in enumerate(defaults):
            if isinstance(default, ast.Name) and (value := constant(module, default.id)):
                defaults[place] = value
    return node


def constant(module: str, name: str) -> ast.Constant | None:
    """The value of a name that the module defines or imports, if it is one number or text."""
    value = getattr(find(module, name).node, "value", None)
    return value if isinstance(value, ast.Constant) else None


def default_of(module: str, name: str, attribute: str) -> ast.Constant | None:
    """The default of a field, where `name` is an instance that the module makes of a class without arguments."""
    made = getattr(find(module, name).node, "value", None)
    if not (isinstance(made, ast.Call) and isinstance(made.func, ast.Name) and not made.args and not made.keywords):
        return None
    of = find(module, made.func.id)
    for field in of.node.body if isinstance(of.node, ast.ClassDef) else ():
        if isinstance(field, ast.AnnAssign) and ast.unparse(field.target) == attribute:
            value = field.value
            if isinstance(value, ast.Name):
                return constant(of.module, value.id)
            return value if isinstance(value, ast.Constant) else None
    return None


def _class_signature(node: ast.ClassDef, module: str) -> str:
    made = next((m for m in node.body if isinstance(m, ast.FunctionDef) and m.name == "__init__"), None)
    bases = ", ".join(map(ast.unparse, node.bases))
    head = f"class {node.name}({bases})" if bases else f"class {node.name}"
    if made is not None:
        return f"{head}\n{_signature(node.name, _with_values(module, made), bound=True)}"
    is_record = any("dataclass" in ast.unparse(d) for d in node.decorator_list) or "NamedTuple" in bases
    fields = [m for m in node.body if isinstance(m, ast.AnnAssign) and "ClassVar" not in ast.unparse(m.annotation)]
    if not (is_record and fields):
        return head
    return f"{head}\n" + _folded(node.name, [_field(field, module) for field in fields], "")


def _field(field: ast.AnnAssign, module: str) -> str:
    name, kind = ast.unparse(field.target), ast.unparse(field.annotation)
    if field.value is None:
        return f"{name}: {kind}"
    call = field.value
    is_setting = isinstance(call, ast.Call) and ast.unparse(call.func) == SETTING
    default = call.args[0] if is_setting and isinstance(call, ast.Call) else call
    if isinstance(default, ast.Attribute) and isinstance(default.value, ast.Name):
        default = default_of(module, default.value.id, default.attr) or default
    elif isinstance(default, ast.Name):
        default = constant(module, default.id) or default
    return f"{name}: {kind} = {_value(default)}"


def _signature(name: str, node: Function, bound: bool = False, fold: bool = True) -> str:
    """As Python shows it. bound: without the first argument, which a call does not give. fold: over several lines where
    it is long."""
    parts = _arguments(node.args)[1 if bound else 0 :]
    result = "" if node.returns is None or node.name == "__init__" else f" -> {_unquoted(node.returns)}"
    return _folded(name, parts, result) if fold else f"{name}({', '.join(parts)}){result}"


def _arguments(args: ast.arguments) -> list[str]:
    placed = [*args.posonlyargs, *args.args]
    defaults: list[ast.expr | None] = [*[None] * (len(placed) - len(args.defaults)), *args.defaults]
    parts = [_argument(arg, default) for arg, default in zip(placed, defaults, strict=True)]
    if args.posonlyargs:
        parts.insert(len(args.posonlyargs), "/")
    if args.vararg is not None:
        parts.append(f"*{_argument(args.vararg, None)}")
    elif args.kwonlyargs:
        parts.append("*")
    parts += [_argument(arg, default) for arg, default in zip(args.kwonlyargs, args.kw_defaults, strict=True)]
    if args.kwarg is not None:
        parts.append(f"**{_argument(args.kwarg, None)}")
    return parts


def _argument(arg: ast.arg, default: ast.expr | None) -> str:
    kind = "" if arg.annotation is None else f": {_unquoted(arg.annotation)}"
    if default is None:
        return f"{arg.arg}{kind}"
    return f"{arg.arg}{kind} = {_value(default)}" if kind else f"{arg.arg}={_value(default)}"


def _value(default: ast.expr) -> str:
    """A default, with the quotes that the source has."""
    text = ast.unparse(default)
    return f'"{text[1:-1]}"' if text.startswith("'") and '"' not in text else text


def _unquoted(annotation: ast.expr) -> str:
    """An annotation; one that is written as a text without its quotes."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return annotation.value
    return ast.unparse(annotation)


def _folded(name: str, parts: list[str], result: str) -> str:
    line = f"{name}({', '.join(parts)}){result}"
    if len(line) <= LONGEST_SIGNATURE:
        return line
    return f"{name}(\n" + "".join(f"    {part},\n" for part in parts) + f"){result}"


def _members(node: ast.ClassDef) -> str:
    """The public methods and properties of a class that have a docstring, an item each."""
    items = []
    for member in node.body:
        text = ast.get_docstring(member) if isinstance(member, Function) else None
        if not isinstance(member, Function) or member.name.startswith("_") or text is None:
            continue
        marks = [ast.unparse(mark) for mark in member.decorator_list]
        if any(mark.endswith(".setter") for mark in marks):
            continue
        if any(mark.endswith("property") for mark in marks):
            shown = member.name
        else:
            shown = _signature(member.name, member, bound="staticmethod" not in marks, fold=False)
        items.append(f"- `{shown}`: {_escaped(' '.join(text.split()))}")
    return "\n".join(items)


def markdown(text: str | None) -> str:
    """A docstring as Markdown: paragraphs as they are, its sections of arguments as lists."""
    if not text:
        return ""
    lines, in_section = [], False
    for line in text.strip().splitlines():
        if heading := _SECTION.fullmatch(line):
            lines += [f"**{heading[1]}**", ""]
            in_section = True
        elif in_section and line.startswith("    "):
            body = line[4:]
            item = not body.startswith(" ")
            lines.append(f"- {_item(body)}" if item else f"  {_escaped(body.strip())}")
        else:
            in_section = in_section and not line
            lines.append(line if line.startswith("    ") else _escaped(line))
    return "\n".join(lines)


def _item(line: str) -> str:
    """A line of a section; what stands before the colon is a name."""
    if named := re.fullmatch(r"([\w, *]+): (.*)", line):
        return f"`{named[1]}`: {_escaped(named[2])}"
    return _escaped(line)


def _escaped(line: str) -> str:
    """The line with what Markdown would take for marks escaped, outside code."""
    parts = re.split(r"(`[^`]*`)", line)
    return "".join(p if p.startswith("`") else _MARK.sub(r"\\\g<0>", p) for p in parts)
