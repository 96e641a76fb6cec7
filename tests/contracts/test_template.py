"""Path templates."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_elche.contracts.template import PathTemplate

CKPT = PathTemplate.parse("{run_dir}/ckpt/epoch-{epoch:03d}.ckpt")


def test_path_is_made_of_epoch_and_run_dir() -> None:
    """The number is padded, and the rest is kept."""
    assert CKPT.format(7, Path("/runs/a")) == Path("/runs/a/ckpt/epoch-007.ckpt")


@pytest.mark.parametrize(
    ("epoch", "path"),
    [(0, "ckpt/epoch-000.ckpt"), (999, "ckpt/epoch-999.ckpt"), (1000, "ckpt/epoch-1000.ckpt")],
)
def test_padding_is_the_least_number_of_digits(epoch: int, path: str) -> None:
    """Epoch 1000 has four digits although three are asked for."""
    assert CKPT.relative(epoch) == path


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("ckpt/epoch-007.ckpt", (7, True)),
        ("ckpt/epoch-1000.ckpt", (1000, True)),
        ("ckpt/epoch-7.ckpt", (7, False)),
        ("ckpt/epoch-0007.ckpt", (7, False)),
        ("ckpt/epoch-.ckpt", None),
        ("ckpt/epoch-+07.ckpt", None),
        ("ckpt/epoch-1_0.ckpt", None),
        ("ckpt/epoch-\N{ARABIC-INDIC DIGIT SEVEN}.ckpt", None),
        ("ckpt/epoch-007.ckpt.tmp", None),
        ("other/epoch-007.ckpt", None),
        (f"ckpt/epoch-{'9' * 18}.ckpt", (10**18 - 1, True)),
        (f"ckpt/epoch-{'9' * 19}.ckpt", None),
        (f"ckpt/epoch-{'9' * 5000}.ckpt", None),
    ],
)
def test_path_is_matched_with_any_number_of_digits(
    path: str, found: tuple[int, bool] | None
) -> None:
    """A path tells its epoch, and whether it is the one that would be written."""
    assert CKPT.match(path) == found


def test_path_without_padding_has_one_spelling() -> None:
    """`{epoch}` stands for the plain number."""
    template = PathTemplate.parse("{run_dir}/e{epoch}/model.pt")
    assert template.relative(12) == "e12/model.pt"
    assert template.match("e012/model.pt") == (12, False)


@pytest.mark.parametrize(
    ("text", "folder"),
    [
        ("{run_dir}/ckpt/epoch-{epoch}.ckpt", "ckpt"),
        ("{run_dir}/a/b/{epoch}.ckpt", "a/b"),
        ("{run_dir}/{epoch}.ckpt", ""),
        ("{run_dir}/a/{epoch}/model.pt", "a"),
    ],
)
def test_folder_is_what_all_epochs_share(text: str, folder: str) -> None:
    """The folder ends before the part with the number."""
    assert PathTemplate.parse(text).folder == folder


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("ckpt/{epoch}.ckpt", "must begin with '{run_dir}/'"),
        ("{run_dir}{epoch}.ckpt", "must begin with '{run_dir}/'"),
        ("/tmp/{run_dir}/{epoch}", "must begin with '{run_dir}/'"),
        ("{run_dir}/model.ckpt", "got 0 in"),
        ("{run_dir}/{epoch}/{epoch}", "got 2 in"),
        ("{run_dir}/{epoch:3d}", "got 0 in"),
        ("{run_dir}/{epoch:d}", "got 0 in"),
        ("{run_dir}/{epoch:00d}", "got 0 in"),
        ("{run_dir}/{epoch!r}", "got 0 in"),
        ("{run_dir}/{epoch.__class__}", "got 0 in"),
        ("{run_dir}/{epoch[0]}", "got 0 in"),
        ("{run_dir}/{{epoch}}", "braces"),
        ("{run_dir}/{step}-{epoch}", "braces"),
        ("{run_dir}/{run_dir}/{epoch}", "braces"),
        ("{run_dir}/../{epoch}", "'..'"),
        ("{run_dir}/a/./{epoch}", "'..'"),
        ("{run_dir}//{epoch}", "empty parts"),
        ("{run_dir}/{epoch}/", "empty parts"),
        ("{run_dir}/a\\{epoch}", "backslashes"),
        ("{run_dir}/C:/{epoch}", "drive"),
        ("{run_dir}/a\0{epoch}", "control characters"),
        ("{run_dir}/a\n{epoch}", "control characters"),
        ("{run_dir}/{epoch:019d}", "more than 18 digits"),
    ],
)
def test_template_is_refused_with_its_reason(text: str, reason: str) -> None:
    """Whatever could lead elsewhere, or to one path for two epochs, is no template."""
    with pytest.raises(ValueError, match="`path_template`") as raised:
        PathTemplate.parse(text)
    assert reason in str(raised.value)


@pytest.mark.parametrize(
    "text", ["{run_dir}/{epoch:018d}", "{run_dir}/..a/{epoch}..", "{run_dir}/~/{epoch}"]
)
def test_template_is_accepted_at_the_limits(text: str) -> None:
    """Eighteen digits are allowed, and dots that are part of a name."""
    assert PathTemplate.parse(text).text == text


def test_run_dir_may_be_left_out_where_allowed() -> None:
    """Without `{run_dir}` a path is relative to it all the same, and never absolute."""
    assert PathTemplate.parse("{epoch}.pt", requires_run_dir=False).relative(3) == "3.pt"
    with pytest.raises(ValueError, match="absolute"):
        PathTemplate.parse("/tmp/{epoch}.pt", requires_run_dir=False)


@given(epoch=st.integers(min_value=0, max_value=10**18 - 1), width=st.integers(1, 18))
def test_every_path_leads_back_to_its_epoch(epoch: int, width: int) -> None:
    """What is written for an epoch is found as this epoch, in its own spelling."""
    template = PathTemplate.parse(f"{{run_dir}}/v2/0{{epoch:0{width}d}}0.pt")
    assert template.match(template.relative(epoch)) == (epoch, True)


@given(text=st.text(alphabet="{}epochrun_di/.:03d\\\0", max_size=40))
def test_any_text_is_a_template_or_refused(text: str) -> None:
    """No text leads to another error, or out of the folder of the run."""
    try:
        template = PathTemplate.parse("{run_dir}/" + text)
    except ValueError:
        return
    assert ".." not in Path(template.relative(1)).parts
