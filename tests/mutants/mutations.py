"""Mutants: small faults in the code, made by cosmic-ray's operators, and a sample of them."""

from __future__ import annotations

import ast
import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

# Arithmetic of bits on floats and an order of None only raise; `is` for `==` is luck.
SENSELESS = re.compile(
    r"BinaryOperator_(Add|Sub|Mul|Div|FloorDiv|Mod|Pow)_(RShift|LShift|Bit\w+)$"
    r"|BinaryOperator_Bit\w+_(Add|Sub|Mul|Div|FloorDiv|Mod|Pow|RShift|LShift)$"
    r"|ComparisonOperator_(?!Is)\w+_Is(Not)?$"
    r"|ComparisonOperator_Is(Not)?_(?!Is)\w+$"
    r"|UnaryOperator_(UAdd|USub)_Invert$"
)
ASSERTIONS = {"strict", "frozen"}  # of zip and dataclass; they only matter to mistaken code
SPEECH = {"rank_zero_info", "rank_zero_warn", "warn"}


@dataclass(frozen=True)
class Mutant:
    """One fault at one place; `nth` counts equal lines and places of its operator in the file."""

    file: str
    operator: str
    occurrence: int
    position: tuple[int, int]
    scope: str
    text: str
    nth: int

    @property
    def key(self) -> tuple[str, str, str, int]:
        """What names this mutant wherever its line has moved to."""
        return self.file, self.operator, self.text, self.nth

    def rank(self, seed: int) -> str:
        """A random number that depends on the code around, not on line numbers and folders."""
        words = f"{seed}|{self.scope}|{self.operator}|{self.text}|{self.nth}"
        return hashlib.sha256(words.encode()).hexdigest()


def mutants_of(file: str, source: str) -> Iterator[Mutant]:
    """Every mutant that cosmic-ray makes of a file, without the senseless operators."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.ast.ast_query import ASTQuery
    from cosmic_ray.plugins import get_operator, operator_names

    lines, seen = source.splitlines(), Counter[tuple[str, str]]()
    nodes = list(ast_nodes(get_ast(source)))
    for name in operator_names():
        if SENSELESS.search(name) or get_operator(name).arguments():
            continue
        operator, short = get_operator(name)(), name.partition("/")[2]
        places = ((n, start) for n in nodes for start, _ in operator.mutation_positions(n))
        for occurrence, (node, start) in enumerate(places):
            text = lines[start[0] - 1].strip()
            nth = seen[short, text]
            seen[short, text] += 1
            scope = ASTQuery(node).get_definition_name() or ""
            yield Mutant(file, short, occurrence, start, scope, text, nth)


def mutated(mutant: Mutant, source: str) -> str:
    """The source with the fault in it; without one where cosmic-ray fails to make it."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    operator = get_operator(f"core/{mutant.operator}")()
    try:
        changed: str | None = mutate_code(source, operator, mutant.occurrence)
    except AttributeError:  # of ExceptionReplacer, for a dotted name in `except (A, b.C)`
        return source
    assert changed is not None
    return changed


class _Bare(ast.NodeTransformer):
    """Takes away annotations and their imports, assertions, and texts of errors and logs."""

    def visit_arg(self, node: ast.arg) -> ast.arg:
        return ast.arg(node.arg)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)

    def visit_If(self, node: ast.If) -> ast.AST:
        return ast.Pass() if ast.unparse(node.test) == "TYPE_CHECKING" else self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        if isinstance(node.exc, ast.Call):
            node.exc.args = [a for a in node.exc.args if not _is_text(a)]
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if ast.unparse(node.func).rpartition(".")[2] in SPEECH:
            node.args = []
        node.keywords = [k for k in node.keywords if k.arg not in ASSERTIONS]
        return self.generic_visit(node)


def _is_text(node: ast.AST) -> bool:
    """Whether an expression has a string in it."""
    parts = ast.walk(node)
    return any(isinstance(p, ast.Constant) and isinstance(p.value, str) for p in parts)


def runs_differently(source: str, changed: str) -> bool:
    """Whether a fault is Python, and not only in what `_Bare` takes away."""
    try:
        trees = [_Bare().visit(ast.parse(text)) for text in (source, changed)]
    except SyntaxError:
        return False
    return ast.dump(trees[0]) != ast.dump(trees[1])


def draw(mutants: Iterable[Mutant], n: int, seed: int, root: Path) -> list[Mutant]:
    """Draw n places, each as likely as any other, and one mutant of each."""
    places = defaultdict(list)
    for mutant in mutants:
        places[mutant.file, mutant.position, mutant.operator.split("_")[0]].append(mutant)
    drawn: list[Mutant] = []
    for place in sorted(places.values(), key=lambda p: p[0].rank(seed)):
        mutant = min(place, key=lambda m: m.rank(seed))
        source = (root / mutant.file).read_text()
        if len(drawn) < n and runs_differently(source, mutated(mutant, source)):
            drawn.append(mutant)
    return drawn
