"""Single changes of Python source that a test should notice: each one a mutant.

Messages, annotations, docstrings and logging are left alone: what they say is read by people.
"""

import ast
import copy
from collections.abc import Iterator
from typing import NamedTuple

_COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_COMPUTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
}
_CALLED = {"min": "max", "max": "min", "any": "all", "all": "any"}
_LOGGERS = ("_log", "warnings")


class Mutant(NamedTuple):
    """One change.

    Attributes:
        line: Line of the source that is changed.
        before: The expression or statement as it was.
        after: As it is in the mutant.
        source: The whole changed source.
    """

    line: int
    before: str
    after: str
    source: str


def list_mutants(source: str) -> list[Mutant]:
    """Every mutant of a source, in the order of its lines.

    Args:
        source: Text of a Python file.
    """
    tree = ast.parse(source)
    found = []
    for number, node in enumerate(_changeable(tree)):
        for choice in range(len(_changes(node))):
            changed = copy.deepcopy(tree)
            target = list(_changeable(changed))[number]
            before = ast.unparse(target)
            replacement = _changes(target)[choice]
            _replace(changed, target, replacement)
            after = ast.unparse(replacement)
            text = ast.unparse(ast.fix_missing_locations(changed))
            found.append(Mutant(node.lineno, _shorten(before), _shorten(after), text))  # type: ignore[attr-defined]
    return sorted(found, key=lambda mutant: mutant.line)


def _changeable(node: ast.AST) -> Iterator[ast.AST]:
    """Expressions and statements below a node that may be changed, each before its parts."""
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "bases"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or _is_said(child):
                continue
            if isinstance(child, ast.expr | ast.stmt):
                yield child
            yield from _changeable(child)


def _is_said(node: ast.AST) -> bool:
    """Whether a node is text for a person: a message, a docstring, a line of the log."""
    if isinstance(node, ast.JoinedStr | ast.Import | ast.ImportFrom | ast.Assert):
        return True
    if not isinstance(node, ast.Expr):
        return False
    if isinstance(node.value, ast.Constant):
        return True
    call = node.value.func if isinstance(node.value, ast.Call) else None
    owner = call.value if isinstance(call, ast.Attribute) else None
    return isinstance(owner, ast.Name) and owner.id in _LOGGERS


def _changes(node: ast.AST) -> list[ast.AST]:
    """What a node may be replaced by."""
    new = copy.deepcopy(node)
    match new:
        case ast.Compare(ops=[only]) if type(only) in _COMPARED:
            new.ops = [_COMPARED[type(only)]()]
        case ast.BinOp(op=op) | ast.AugAssign(op=op) if type(op) in _COMPUTED:
            new.op = _COMPUTED[type(op)]()
        case ast.BoolOp():
            new.op = ast.Or() if isinstance(new.op, ast.And) else ast.And()
        case ast.UnaryOp(op=ast.Not()):
            return [new.operand]
        case ast.Constant(value=bool()):
            new.value = not new.value
        case ast.Constant(value=int() | float() as number):
            new.value = number + 1
        case ast.If() | ast.While() | ast.IfExp() if not _is_inverted(new.test):
            new.test = ast.UnaryOp(ast.Not(), new.test)
        case ast.Call(func=ast.Name(id=name)) if name in _CALLED:
            new.func = ast.Name(_CALLED[name], ast.Load())
        case ast.Expr(value=ast.Call()) | ast.Raise() | ast.Continue() | ast.Break():
            return [ast.copy_location(ast.Pass(), node)]
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            return [ast.copy_location(ast.Pass(), node)]
        case _:
            return []
    return [new]


def _is_inverted(test: ast.expr) -> bool:
    """Whether a change of the condition itself is the same as its negation."""
    simple = isinstance(test, ast.Compare) and type(test.ops[0]) not in (
        ast.Lt,
        ast.LtE,
        ast.Gt,
        ast.GtE,
    )
    return simple or (isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not))


def _replace(tree: ast.AST, old: ast.AST, new: ast.AST) -> None:
    for parent in ast.walk(tree):
        for field, value in ast.iter_fields(parent):
            if value is old:
                setattr(parent, field, new)
                return
            if isinstance(value, list) and any(item is old for item in value):
                value[[item is old for item in value].index(True)] = new
                return
    raise AssertionError("the node is not part of the tree")


def _shorten(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 100 else f"{line[:97]}..."
