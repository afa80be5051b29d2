"""The policy of a model is read from its manifest, and mistakes in it are named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dicom_node.domain.errors import ToolError
from dicom_node.domain.policy import InputPolicy, Treatment
from dicom_node.tools.registry import build_tool, load_models

SHIPPED = Path(__file__).parents[3] / "models"


def with_policy(lines: str) -> Callable[[str], str]:
    return lambda text: text.replace("[input]", f"[policy]\n{lines}\n[input]")


def test_a_model_that_says_nothing_has_the_default_policy(a_model: Callable[..., Path]) -> None:
    assert load_models(a_model("plain", "threshold"))["plain"].policy == InputPolicy()


def test_what_a_model_says_is_its_policy(a_model: Callable[..., Path]) -> None:
    lines = (
        'tilt = "resample"\nspacing = "warn"\ncopies = "ignore"\nmin_slices = 10\n'
        'max_anisotropy = 12\nforeign_body_parts = ["head", "Knee "]'
    )
    folder = a_model("plain", "threshold", edit=with_policy(lines))
    policy = load_models(folder)["plain"].policy
    assert policy == InputPolicy(
        tilt=Treatment.RESAMPLE,
        spacing=Treatment.WARN,
        copies=Treatment.IGNORE,
        min_slices=10,
        max_anisotropy=12.0,
        foreign_body_parts=("HEAD", "KNEE"),
    )
    assert build_tool(load_models(folder)["plain"]).input_policy() == policy


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('tlit = "warn"', "unknown key policy.tlit; allowed are anisotropy, body_part"),
        ('tilt = "ask"', """policy.tilt = 'ask': allowed are "refuse", "warn", "resample"."""),
        ('holes = "resample"', """policy.holes = 'resample': allowed are "refuse", "warn"."""),
        ("hu = true", """policy.hu = True: allowed are "refuse", "warn"."""),
        ("tilt = []", """policy.tilt = []: allowed are "refuse", "warn", "resample"."""),
        ("min_slices = 0", "policy.min_slices = 0: a whole number from 1 upwards is needed"),
        ("min_slices = 2.5", "policy.min_slices = 2.5: a whole number from 1 upwards is needed"),
        ("min_matrix = true", "policy.min_matrix = True: a whole number from 1 upwards is needed"),
        ("max_anisotropy = nan", "policy.max_anisotropy = nan: a number from 1 upwards is needed"),
        ('max_anisotropy = "9"', "policy.max_anisotropy = '9': a number from 1 upwards is needed"),
        ('foreign_body_parts = "HEAD"', "policy.foreign_body_parts = 'HEAD': a list of texts"),
        ("max_anisotropy = inf", "policy.max_anisotropy = inf: a number from 1 upwards is needed"),
        ("foreign_body_parts = [1]", "policy.foreign_body_parts = [1]: a list of texts"),
    ],
)
def test_a_mistake_in_the_policy_is_named_with_what_is_allowed(
    a_model: Callable[..., Path], line: str, sentence: str
) -> None:
    folder = a_model("plain", "threshold", edit=with_policy(line))
    with pytest.raises(ToolError) as refusal:
        load_models(folder)
    assert str(refusal.value).startswith("Model plain: ")
    assert sentence in str(refusal.value)


def test_the_shipped_model_goes_on_where_one_slice_at_a_time_is_enough() -> None:
    policy = load_models(SHIPPED)["lung-unet"].policy
    assert policy.tilt is Treatment.RESAMPLE
    assert policy.spacing is policy.holes is policy.body_part is Treatment.WARN
    assert policy.duplicates is policy.hu is policy.few_slices is Treatment.REFUSE
    assert "HEAD" in policy.foreign_body_parts


def test_a_policy_is_one_table(a_model: Callable[..., Path]) -> None:
    edit = lambda text: text.replace("[input]", '[[policy]]\ntilt = "warn"\n[input]')  # noqa: E731
    with pytest.raises(ToolError, match="policy is not a table"):
        load_models(a_model("plain", "threshold", edit=edit))
