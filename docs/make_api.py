"""Writes docs/api.md, the public Python API, from signatures, docstrings and comments of fields.

`python docs/make_api.py` writes the page; the tests compare it with `render()` and run every
example. Public is what `sparity_edge.__all__` names; of a class its methods and properties without
an underscore, inherited ones too. Knows only this project's style of docstrings.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

from own_files import ROOT

import sparity_edge

PAGE = ROOT / "docs" / "api.md"
# As a reader meets them; what `__all__` has beyond these follows by name.
FIRST = ("Generator", "SamplingParams", "Completion", "Step", "Statistics", "Tokenizer",
         "ModelConfig", "read_config", "SparityError")  # fmt: skip
# What the package calls itself and no user has to.
INNER = {"apply", "loaded", "new_call", "refuse_stale", "of"}
SECTION = re.compile(r"^(Args|Returns|Yields|Raises|Example):\n", re.MULTILINE)
ENTRY = re.compile(r"^([\w, *]+): ")
NAMES = r"`\1`: "
WIDTH = 88  # of signatures
HEADER = """# Python API

Everything that `import sparity_edge` offers; `python docs/make_api.py` writes this page from the
docstrings, and a test runs the examples. In them, `generator` is a loaded model. A `Prompt` is
a text, a list of messages with "role" and "content", or a list of token ids. [usage.md](usage.md)
says how to use it all.
"""


def render() -> str:
    """The page."""
    names = [*FIRST, *(name for name in sparity_edge.__all__ if name not in FIRST)]
    return HEADER + "".join(
        line for name in names if name != "__version__" for line in _object(name)
    )


def _object(name: str) -> Iterator[str]:
    """Title, signature or fields, docstring, and the members of a class."""
    value = getattr(sparity_edge, name)
    yield f"\n## {name}\n\n"
    if not inspect.isclass(value):
        yield _call(value)
        return
    yield _docstring(value, "Args")  # how one is made stands at its fields or in prose
    yield _fields(value)
    members = _members(value)
    for member, found in sorted(members.items(), key=lambda each: inspect.isfunction(each[1])):
        if not isinstance(found, property):
            yield f"\n### {name}.{member}\n\n{_call(getattr(found, '__func__', found))}"
    yield _properties({key: found for key, found in members.items() if isinstance(found, property)})


def _call(function: Any) -> str:
    return f"```python\n{_signature(_node(function))}\n```\n\n{_docstring(function)}"


def _properties(found: dict[str, property]) -> str:
    rows = []
    for name, each in found.items():
        returns = _node(each.fget).returns
        kind = "" if returns is None else f"`{ast.unparse(returns)}`"
        settable = "" if each.fset is None else ", can be set"
        rows.append((f"`{name}`", kind + settable, " ".join((each.__doc__ or "").split())))
    return _table(("property", "type", "meaning"), rows)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table behind an empty line; nothing where there are no rows."""
    cells = [head, ("---",) * len(head), *rows]
    lines = (" | ".join(cell.replace("|", "\\|") for cell in row) for row in cells)
    return "\n" + "".join(f"| {line} |\n" for line in lines) if rows else ""


def _members(value: type) -> dict[str, Any]:
    """Public methods and properties of a class and of those of ours that it inherits from."""
    found: dict[str, Any] = {}
    for each in value.__mro__:
        if each.__module__.startswith("sparity_edge."):
            for name, member in vars(each).items():
                call = isinstance(member, property | staticmethod | classmethod)
                if (call or inspect.isfunction(member)) and name[0] != "_" and name not in INNER:
                    found.setdefault(name, member)
    return found


def _node(function: Any) -> ast.FunctionDef:
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    assert isinstance(node, ast.FunctionDef)
    return node


def _signature(node: ast.FunctionDef) -> str:
    """The signature without self, an argument a line where it is long."""
    written = re.sub(r"^(self|cls)(, )?", "", ast.unparse(node.args))
    arguments = [
        part.replace("=", " = ", 1) if ":" in part else part
        for part in re.split(r", (?![^\[]*\])", written)
    ]
    end = "" if node.returns is None else f" -> {ast.unparse(node.returns)}"
    line = f"{node.name}({', '.join(arguments)}){end}"
    if len(line) <= WIDTH:
        return line
    return f"{node.name}(\n" + "".join(f"    {part},\n" for part in arguments) + f"){end}"


def _docstring(value: Any, without: str = "") -> str:
    """A docstring as Markdown: prose, lists of arguments and errors, the example as code."""
    prose, *rest = SECTION.split(inspect.getdoc(value) or "")
    parts = [prose.strip()]
    for title, body in zip(rest[::2], rest[1::2]):
        if title != without:
            parts.append(_section(title, textwrap.dedent(body).strip("\n")))
    return "\n\n".join(parts) + "\n"


def _section(title: str, body: str) -> str:
    if title == "Example":
        return f"```python\n{body}\n```"
    if title in ("Args", "Raises"):
        return f"{title}:\n\n{_entries(body)}"
    return f"{title}: {' '.join(body.split())}"


def _entries(body: str) -> str:
    """`name: what it is` by lines, as a list; further lines of an entry are indented."""
    entries = (" ".join(entry.split()) for entry in re.split(r"\n(?! )", body))
    return "\n".join(f"- {ENTRY.sub(NAMES, entry)}" for entry in entries)


def _fields(value: type) -> str:
    """The fields of a dataclass with types, defaults and what their comments say."""
    if not hasattr(value, "__dataclass_fields__"):
        return ""
    source = textwrap.dedent(inspect.getsource(value))
    (body,) = ast.parse(source).body
    assert isinstance(body, ast.ClassDef)
    rows: list[tuple[str, ...]] = []
    for node in body.body:
        if isinstance(node, ast.AnnAssign):
            kinds = (f"`{ast.unparse(part)}`" for part in (node.target, node.annotation))
            rows.append((*kinds, _default(node.value), _comment(source.splitlines(), node)))
    return _table(("field", "type", "default", "meaning"), rows)


def _default(value: ast.expr | None) -> str:
    if isinstance(value, ast.Call):  # field(default_factory=dict)
        made = next(word.value for word in value.keywords if word.arg == "default_factory")
        return f"`{ast.unparse(made)}()`"
    return "" if value is None else f"`{ast.unparse(value)}`"


def _comment(source: list[str], node: ast.AnnAssign) -> str:
    """The comment behind a field, or the lines of comment above it."""
    line = node.lineno - 1
    behind = source[line][node.end_col_offset :].partition("# ")[2]
    above: list[str] = []
    while not behind and source[line - 1].lstrip().startswith("# "):
        line -= 1
        above.insert(0, source[line].lstrip()[2:])
    return behind or " ".join(above)


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8", newline="\n")
    sys.stdout.write(f"{PAGE.relative_to(ROOT)}: {len(sparity_edge.__all__)} names\n")
