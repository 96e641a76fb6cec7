"""Reading YAML with places, within limits."""

from __future__ import annotations

import importlib.util
import json
import sys
from types import ModuleType

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lightning_elche.contracts.grammar import yamltree
from lightning_elche.contracts.grammar.yamltree import MOST_BYTES, read_document
from lightning_elche.contracts.verdicts import Finding
from lightning_elche.exceptions import ContractError


def broken(text: str | bytes) -> tuple[str, int | None, int | None, str]:
    """Return rule, line, column and message of the first finding of a file that is refused."""
    with pytest.raises(ContractError) as raised:
        read_document(text if isinstance(text, bytes) else text.encode(), path="c.yaml")
    first = raised.value.findings[0]
    assert first.at is not None
    return first.rule, first.at.line, first.at.column, first.message


def refusals(text: bytes) -> tuple[Finding, ...]:
    """Return what is wrong with a file, nothing if it can be read."""
    try:
        read_document(text, path="c.yaml")
    except ContractError as err:
        return err.findings
    return ()


def value(text: str) -> object:
    """Return what a file says."""
    return read_document(text.encode(), path="c.yaml").value


def test_keys_are_the_text_of_the_file() -> None:
    """Keys are text whatever they look like."""
    assert value("on: 1\n1: 2\n~: 3\n5e-5: 4\n'': 5\n") == {
        "on": 1,
        "1": 2,
        "~": 3,
        "5e-5": 4,
        "": 5,
    }


def test_values_are_those_of_yaml_1_2() -> None:
    """Plain scalars have a meaning, quoted and block scalars are text."""
    assert value("a: 1e3\nb: '1e3'\nc: |\n  5\nd: [yes, true]\n") == {
        "a": 1000.0,
        "b": "1e3",
        "c": "5\n",
        "d": ["yes", True],
    }


def test_byte_order_mark_is_skipped() -> None:
    """A file that begins with a mark in UTF-8 is read as if it did not."""
    document = read_document(b"\xef\xbb\xbfa: 1\n", path="c.yaml")
    assert (document.value, document.locate(["a"], is_key=True).column) == ({"a": 1}, 1)


def test_alias_stands_for_what_its_anchor_has() -> None:
    """Anchors and aliases are plain YAML."""
    assert value("a: &x [1, 2]\nb: *x\n*x2 : 1\n".replace("*x2 ", "c")) == {
        "a": [1, 2],
        "b": [1, 2],
        "c": 1,
    }


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, 1, "key 'a' is there already at line 1, column 1"),
        ("1: x\n'1': y\n", 2, 1, "key '1' is there already at line 1, column 1"),
        ("a: !!str 5\n", 1, 4, "tag 'tag:yaml.org,2002:str' must not be here"),
        ("a: &x !mine 5\n", 1, 4, "tag '!mine' must not be here"),
        ("a: !!python/object/apply:os.system [x]\n", 1, 4, "must not be here"),
        ("!!str a: 5\n", 1, 1, "tag 'tag:yaml.org,2002:str' must not be here; write a plain key"),
        ("a: &x {b: 1}\nc: {<<: *x}\n", 2, 5, "merge keys must not be here"),
        ("a: 1\n---\nb: 1\n", 2, 1, "found another document"),
        ("", 1, 1, "the file is empty"),
        ("# nothing\n", 1, 1, "the file is empty"),
        ("? [a, b]\n: 1\n", 1, 3, "a key must be text"),
        ("{a: b}: 1\n", 1, 1, "a key must be text"),
        ("a: *x\n", 1, 4, "found undefined alias"),
        ("a: &x [*x]\n", 1, 4, "an anchor must not contain an alias to itself"),
        ("a: &x {b: [*x]}\n", 1, 4, "an anchor must not contain an alias to itself"),
        ("a: [1\nb: 2\n", 2, 2, "while parsing a flow sequence"),
        ("\u00e9\u00e9: '\n", 2, 1, "found unexpected end of stream"),
        ("a: \0\n", 1, 4, "character U+0000 must not be in YAML"),
        ("\u00e9: \x07\n", 1, 4, "character U+0007 must not be in YAML"),
        ('a: "\\ud800"\n', 1, 7, "found invalid Unicode character escape code"),
    ],
)
def test_file_is_refused_at_its_place(text: str, line: int, column: int, message: str) -> None:
    """What is not plain YAML is reported with line and column, counted in characters."""
    found = broken(text)
    assert found[:3] == ("CT-YAML", line, column)
    assert message in found[3]


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        (b"a: \xff\n", 1, 4),
        (b"\xef\xbb\xbf\xc3\xa9: \xff\n", 1, 4),
        (b"a: 1\n\xc3\xa9: \xe2\x82\n", 2, 4),
        (b"a: \xed\xa0\x80\n", 1, 4),  # half of a pair of surrogates
        ("a: 1\n".encode("utf-16"), 1, 1),
    ],
)
def test_bytes_that_are_not_utf8_are_refused_at_their_place(
    text: bytes, line: int, column: int
) -> None:
    """The first bad byte is named, by line, by column in characters, and in words."""
    found = broken(text)
    assert found[:3] == ("CT-YAML", line, column)
    assert "not UTF-8" in found[3]


def test_bad_byte_has_its_offset() -> None:
    """Where a file is not text, its place is told in bytes, too."""
    with pytest.raises(ContractError) as raised:
        read_document(b"\xc3\xa9: \xff\n", path="c.yaml")
    at = raised.value.findings[0].at
    assert at is not None
    assert at.offset == 4


@pytest.mark.parametrize(
    ("text", "pointer"),
    [
        ("a: .nan\n", "/a"),
        ("a: [1, -.inf]\n", "/a/1"),
        ("a: {b: 1e400}\n", "/a/b"),
        ("a~/b: " + "9" * 5000, "/a~0~1b"),
    ],
)
def test_number_that_is_not_finite_is_refused(text: str, pointer: str) -> None:
    """NaN, infinities and numbers too large are found wherever they are."""
    with pytest.raises(ContractError) as raised:
        read_document(text.encode(), path="c.yaml")
    first = raised.value.findings[0]
    assert first.at is not None
    assert (first.rule, first.at.pointer) == ("CT-NONFINITE", pointer)


@pytest.mark.parametrize("text", ["a: '.nan'\n", ".inf: 1\n", "a: NaN\n", "a: 1e308\n"])
def test_text_that_looks_like_nan_is_no_number(text: str) -> None:
    """Keys and quoted scalars are not looked at, nor is the largest number refused."""
    assert value(text) is not None


def test_all_problems_of_a_file_are_reported_up_to_a_hundred() -> None:
    """A second problem is reported beside the first, but not a hundred and first."""
    with pytest.raises(ContractError) as raised:
        read_document(b"a: 1\n" * 200, path="c.yaml")
    assert len(raised.value.findings) == 100


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? ", "a:\n - "])
def test_nesting_of_a_million_levels_is_refused_at_once(opening: str) -> None:
    """Depth is counted while the file is read, so that nothing recurses into it."""
    assert broken(opening * 10**6 if opening != "a:\n - " else "- " * 10**6)[0] == "CT-YAML"


def test_levels_are_limited_to_a_hundred() -> None:
    """A value may be at level 100, and not one deeper."""
    assert value("[" * 99 + "x" + "]" * 99) is not None
    assert broken("[" * 100 + "x" + "]" * 100)[3] == "more than 100 levels"


def test_levels_are_counted_through_aliases() -> None:
    """Aliases of aliases do not get deeper than the limit either."""
    chain = "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 98))
    assert value("a0: &a0 x\n" + chain) is not None
    found = broken("a0: &a0 x\n" + chain + "z: [[[*a97]]]\n")
    assert found[3] == "more than 100 levels, with aliases written out"


@pytest.mark.slow
def test_nodes_are_limited() -> None:
    """A file of 200,000 nodes is read, and one of a node more is refused."""
    assert value("[" + "x," * 199_999 + "]") is not None
    assert broken("[" + "x," * 200_000 + "]")[3] == "more than 200000 nodes"


def test_nodes_are_counted_through_aliases() -> None:
    """A few lines that stand for billions of nodes are refused without writing them out."""
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30)
    )
    assert broken(bomb)[3] == "more than 200000 nodes, with aliases written out"


def test_bytes_are_limited_to_four_mebibytes() -> None:
    """A file of 4 MiB is read, and one of a byte more is refused."""
    assert value("a: 1\n" + "#" * (MOST_BYTES - 5)) == {"a": 1}
    assert broken(b"a: 1\n" + b"#" * (MOST_BYTES - 4))[3].startswith("the file has more than")


@pytest.mark.parametrize(
    ("steps", "is_key", "line", "column", "pointer"),
    [
        ([], False, 1, 1, ""),
        (["a"], False, 1, 4, "/a"),
        (["b", 1, "c"], True, 4, 5, "/b/1/c"),
        (["b", 1, "c"], False, 4, 8, "/b/1/c"),
        (["b", 1, "missing"], False, 4, 5, "/b/1"),
        (["\u00e9\u00e9"], False, 5, 5, "/\u00e9\u00e9"),
    ],
)
def test_place_is_found_by_keys_and_indices(
    steps: list[str | int], is_key: bool, line: int, column: int, pointer: str
) -> None:
    """Values and keys have lines and columns from 1; what is missing has the place before it."""
    text = "a: 1\nb:\n  - x\n  - c:  2\n\u00e9\u00e9: 3\n".replace("- c:  2", "- c: 2")
    at = read_document(text.encode(), path="c.yaml").locate(steps, is_key=is_key)
    assert (at.line, at.column, at.pointer) == (line, column, pointer)


@pytest.fixture
def without_libyaml(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the module as it is where PyYAML was built without libyaml."""
    monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    spec = importlib.util.spec_from_file_location("yamltree_in_python", yamltree.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "text",
    [
        "a: 1e3\nb: '1e3'\non: [010, ~, 1_0, 2026-01-01]\n",
        "a: &x {b: 1}\nc: *x\n",
        "a: 1\na: 2\n",
        "a: !!str 5\n",
        "a: &x {b: 1}\nc: {<<: *x}\n",
        "a: 1\n---\nb: 1\n",
        "",
        "[" * 1000,
        "a: *x\n",
        "a: &x [*x]\n",
        "a: .inf\n",
    ],
)
def test_python_reads_as_libyaml_does(text: str, without_libyaml: ModuleType) -> None:
    """Values are the same, and so are the rules and lines of what is refused."""

    def outcome(module: ModuleType) -> object:
        try:
            return module.read_document(text.encode(), path="c.yaml").value
        except ContractError as err:
            return [(one.rule, one.at and one.at.line) for one in err.findings]

    assert outcome(without_libyaml) == outcome(yamltree)


@given(text=st.binary(max_size=60) | st.text("[]{}&*!|>'\"%@`,:?-# \n\tax1.~<", max_size=60))
def test_any_bytes_are_a_document_or_refused(text: str | bytes) -> None:
    """Nothing but a located finding comes of bytes that are no contract."""
    found = refusals(text if isinstance(text, bytes) else text.encode())
    assert all(one.at is not None and one.at.line is not None for one in found)


TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=126))


@given(
    data=st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | TEXT,
        lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
        max_leaves=10,
    )
)
def test_json_is_read_as_json(data: object) -> None:
    """JSON of printable text is YAML 1.2 with the same values."""
    assert value(json.dumps([data])) == [data]
