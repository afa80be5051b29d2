"""What the network is shown in training: sides, labels and places stay true."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import augment
import data
import disease
import numpy as np
import pytest
import torch
from losses import loss_of
from mend import IGNORED
from train import Examples

from dicom_node.tools.unet import SIDE, cut, paste

Load = Callable[..., data.Archive]
SEEDS = range(24)


def a_scene(archive: data.Archive, at: int = 7) -> disease.Scene:
    return augment.plain(data.stack_at(archive, at, 2, 2))


def test_disease_changes_lung_and_its_rim_only(an_archive: Load) -> None:
    scene = a_scene(an_archive())
    lung = (scene.labels > 0).float()[:, None]
    near = torch.nn.functional.max_pool2d(lung, 5, stride=1, padding=2)[:, 0] > 0
    before = scene.labels.clone()
    for seed in SEEDS:
        torch.manual_seed(seed)
        hu, dense = disease.with_disease(scene)
        assert torch.equal(hu[~near], scene.hu[~near]), seed
        assert not (dense.bool() & (scene.labels[1] == 0)).any(), seed
        assert torch.isfinite(hu).all()
    assert torch.equal(scene.labels, before)


def test_disease_is_painted_and_much_of_it_is_dense(an_archive: Load) -> None:
    scene = a_scene(an_archive())
    dense = 0
    for seed in SEEDS:
        torch.manual_seed(seed)
        hu, where = disease.with_disease(scene)
        dense += bool(where.any())
        chosen = where.bool()
        if chosen.any():
            assert float(hu[1][chosen].median()) > -250
    assert dense > len(SEEDS) / 3


def test_gas_is_never_painted_into_the_lung(an_archive: Load) -> None:
    scene = a_scene(an_archive())
    changed = 0
    for seed in SEEDS:
        torch.manual_seed(seed)
        hu = disease.with_gas(scene)
        assert torch.equal(hu[scene.labels > 0], scene.hu[scene.labels > 0])
        changed += not torch.equal(hu, scene.hu)
    assert changed > len(SEEDS) / 2


def test_no_side_is_ever_swapped(an_archive: Load, a_config: dict[str, Any]) -> None:
    quiet = dict.fromkeys(a_config["probability"], 0.0)
    stack = data.stack_at(an_archive(), 7, 1, 1)
    seen = 0
    for seed in SEEDS:
        torch.manual_seed(seed)
        example = augment.augmented(stack, quiet | {"part": 0.3, "disease": 0.0})
        right, left = (torch.nonzero(example.labels == s) for s in (data.RIGHT, data.LEFT))
        if len(right) > 50 and len(left) > 50:
            seen += 1
            assert right[:, 1].float().mean() < left[:, 1].float().mean()
            darker = example.hu[1][example.labels == data.RIGHT].median()
            assert darker < example.hu[1][example.labels == data.LEFT].median() - 60
    assert seen > len(SEEDS) / 2


def test_the_network_is_trained_on_what_the_product_shows_it(an_archive: Load) -> None:
    archive = an_archive()
    stack = data.stack_at(archive, 7, 2, 2)
    shown = cut(stack.hu[None], stack.box, augment.AIR)[0]
    trained_on = augment.plain(stack).hu
    different = (shown - trained_on).abs() > 1.0
    assert float(different.float().mean()) < 0.01  # at the edge of the matrix they may differ


@pytest.mark.parametrize("place", [(12, 20), (40, 46), (60, 70), (41, 16)])
def test_what_lies_at_a_place_comes_back_to_that_place(
    an_archive: Load, place: tuple[int, int]
) -> None:
    archive = an_archive()
    row, column = place
    labels = torch.zeros_like(archive.labels)
    labels[:, row - 2 : row + 3, column - 2 : column + 3] = data.LEFT
    stack = replace(data.stack_at(archive, 7, 2, 2), labels=labels[5:10:2])
    seen = augment.plain(stack).labels[1]
    logits = 8.0 * torch.nn.functional.one_hot(seen, 3).permute(2, 0, 1)[None].float()
    back = torch.zeros((1, *archive.hu.shape[1:]), dtype=torch.uint8)
    paste(logits, stack.box, back)
    assert torch.equal(back[0], labels[7])


def test_what_is_ignored_weighs_nothing_and_is_called_nothing(
    an_archive: Load, a_config: dict[str, Any]
) -> None:
    stack = data.stack_at(an_archive(), 7, 1, 1)
    labels = stack.labels.clone()
    labels[1][(labels[1] == data.RIGHT)] = IGNORED
    torch.manual_seed(1)
    quiet = dict.fromkeys(a_config["probability"], 0.0)
    example = augment.augmented(replace(stack, labels=labels), quiet)
    assert not (example.labels == data.RIGHT).any()
    assert (example.labels <= data.LEFT).all()
    assert (~example.counts).sum() > 200
    assert example.counts[example.labels == data.LEFT].any()
    even = torch.zeros(1, 3, SIDE, SIDE)
    truth, counts = example.labels[None], example.counts[None].float()
    for calls_it in (data.RIGHT, 0):
        logits = even.clone()
        logits[0, calls_it, ~example.counts] = 9.0
        torch.testing.assert_close(loss_of(logits, truth, counts), loss_of(even, truth, counts))


def test_beyond_the_field_of_view_is_no_lung(a_config: dict[str, Any]) -> None:
    cut_off = dict.fromkeys(a_config["probability"], 0.0) | {"truncation": 1.0, "circle": 1.0}
    for seed in range(20):
        torch.manual_seed(seed)
        image, labels = augment.field_of_view(
            torch.full((3, SIDE, SIDE), 40.0), torch.ones(SIDE, SIDE, dtype=torch.long), cut_off
        )
        assert torch.equal(image[1] == augment.AIR, labels == 0)


def test_a_number_gives_the_same_example_whatever_came_before(
    an_archive: Load, a_config: dict[str, Any]
) -> None:
    archives = [an_archive()]
    first, second = (Examples(archives, a_config) for _ in range(2))
    torch.manual_seed(1)
    forwards = [first[n] for n in range(4)]
    torch.manual_seed(2)
    backwards = [second[n] for n in reversed(range(4))][::-1]
    for one, other in zip(forwards, backwards, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    other_seed = Examples(archives, a_config | {"seed": 6})
    assert not torch.equal(other_seed[0][0], first[0][0])
    assert not torch.equal(first[0][0], first[1][0])


def test_an_example_leaves_the_generator_of_others_alone(
    an_archive: Load, a_config: dict[str, Any]
) -> None:
    examples = Examples([an_archive()], a_config)
    torch.manual_seed(9)
    expected = torch.rand(3)
    torch.manual_seed(9)
    _ = examples[0]
    assert torch.equal(torch.rand(3), expected)


def test_examples_are_finite_and_of_known_classes(
    an_archive: Load, a_config: dict[str, Any]
) -> None:
    often = a_config | {"probability": dict.fromkeys(a_config["probability"], 0.8)}
    examples = Examples([an_archive()], often)
    for n in range(20):
        hu, labels, counts, dense = examples[n]
        assert torch.isfinite(hu).all()
        assert set(np.unique(labels)) <= {0, data.RIGHT, data.LEFT}
        assert counts.any()
        assert (labels[dense] > 0).all()


def test_computed_chests_are_drawn_beside_the_real_ones() -> None:
    (chest,) = data.phantoms([101], 6, 64, (40.0, 6.0, 6.0))
    assert chest.drawn
    assert {data.RIGHT, data.LEFT} <= set(np.unique(chest.labels))
    shares = {"single_slices": 0.0, "lung": 0.0, "empty": 0.0, "phantom": 1.0}
    assert data.Sampler([chest], shares, 0.0).draw().hu.shape == (3, 64, 64)
