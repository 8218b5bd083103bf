"""A key that is there twice in a YAML file is an error with its name and lines."""

from __future__ import annotations

import pytest
import yaml

from janus_pl.run.nested import RepeatedKey, load_yaml

TWICE = [
    ("a: 1\nb: 2\na: 3\n", "a is there twice, in lines 1 and 3"),
    ("a:\n  b: 1\n  c: 2\n  'b': 3\n", "a.b is there twice, in lines 2 and 4"),
    ("- x: 1\n- {a: 1, a: 2}\n", "a is there twice, in line 2"),
    ("a: {b: [{c: 1}, {c: 1, c: 2}]}\n", "a.b.c is there twice, in line 1"),
    ("a: &x {b: 1}\nc: *x\nd: {<<: *x, e: 1, e: 2}\n", "d.e is there twice, in line 3"),
    ("1: a\n0x1: b\n01: c\n1: d\n", "1 is there twice, in lines 1 and 4"),
]


@pytest.mark.parametrize(("text", "said"), TWICE)
def test_a_key_that_is_there_twice_is_named(text: str, said: str) -> None:
    with pytest.raises(RepeatedKey) as error:
        load_yaml(text)
    assert str(error.value) == said


@pytest.mark.parametrize(
    "text",
    [
        "a: {b: 1}\nb: {b: 2}\n",
        "1: a\n'1': b\n",
        "a: &x {b: 1}\nc: *x\nd: {<<: *x, b: 2}\n",
        "a: &x {b: 1}\ny: &y {c: 2}\nd: {<<: *x, <<: *y}\n",
        "",
        "a\n",
        "a: &x [*x]\n",
    ],
)
def test_other_files_are_read_as_pyyaml_reads_them(text: str) -> None:
    if "*x]" in text:  # a value that holds itself has no end to compare
        assert load_yaml(text)["a"][0] is not None
    else:
        assert load_yaml(text) == yaml.safe_load(text)


@pytest.mark.parametrize(
    ("text", "line"), [("a:\n\tb: 1\n", 2), ("a:\n  b: 1\n\t c: 2\n", 3), ("a:\tb: 1\n", 1)]
)
def test_a_tab_is_named_with_its_line(text: str, line: int) -> None:
    with pytest.raises(ValueError, match=rf"line {line}; there is a tab") as error:
        load_yaml(text)
    assert "\n" not in str(error.value)


def test_a_mistake_without_a_tab_does_not_speak_of_one() -> None:
    with pytest.raises(ValueError, match=r"line 2$"):
        load_yaml("a: 1\n b: 2\n")
