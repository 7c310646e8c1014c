"""The metrics against computations written apart from them, in plain NumPy, and against libraries."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dcgan_dist.base.counter_random import normal
from dcgan_dist.base.errors import UserError
from dcgan_dist.config import DataConfig, EvaluateConfig
from dcgan_dist.data.loader import PixelSource
from dcgan_dist.data.shard_format import Manifest
from dcgan_dist.distributed.workforce import Workforce
from dcgan_dist.distributed.world import World
from dcgan_dist.metrics import evaluate_checkpoint as evaluating
from dcgan_dist.metrics import evaluation, inception
from dcgan_dist.metrics.evaluation import Evaluator, assert_installed
from dcgan_dist.metrics.image_sets import RealCache, random_order
from dcgan_dist.metrics.ms_ssim import mean_similarity, scale_weights
from dcgan_dist.metrics.scores import (
    Protocol,
    append_scores,
    best_score,
    differences,
    drop_scores_after,
    newest_comparable,
    read_scores,
)
from dcgan_dist.metrics.sliced_wasserstein import DIRECTIONS, levels, patch_corners, sliced_wasserstein
from dcgan_dist.training.scoring import check_scores

CPU = torch.device("cpu")
ALONE = World(0, 1, 0, 1, CPU)
WORKFORCE = Workforce(ALONE, workers=2)


def images(count: int, size: int, seed: int, contrast: float = 70.0) -> Tensor:
    """Smooth coloured waves with some noise: uint8 [count, 3, size, size]."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size
    phases = random.uniform(0, 6, (count, 3, 2, 1, 1))
    waves = np.sin(4 * x + phases[:, :, 0]) + np.sin(5 * y + phases[:, :, 1])
    values = 127 + contrast * waves / 2 + random.normal(0, 10, (count, 3, size, size))
    return torch.from_numpy(values.clip(0, 255).astype(np.uint8))


# --- sliced Wasserstein distance --------------------------------------------------------------------------------------


def mirrored_filter(image: np.ndarray, gain: float) -> np.ndarray:
    """One colour, [height, width], through the outer product of 1 4 6 4 1, written as sums over shifted copies."""
    weights = np.array([1, 4, 6, 4, 1]) / 16
    padded = np.pad(image, 2, mode="reflect")
    out = np.zeros_like(image)
    for dy in range(5):
        for dx in range(5):
            out += gain * weights[dy] * weights[dx] * padded[dy : dy + image.shape[0], dx : dx + image.shape[1]]
    return out


def reference_levels(image: np.ndarray, count: int) -> list[np.ndarray]:
    pyramid = [image]
    for _ in range(count - 1):
        pyramid.append(mirrored_filter(pyramid[-1], 1.0)[::2, ::2])
    differences = []
    for large, small in itertools.pairwise(pyramid):
        spread = np.zeros_like(large)
        spread[::2, ::2] = small
        differences.append(large - mirrored_filter(spread, 4.0))
    return [*differences, pyramid[-1]]


def reference_patches(pixels: np.ndarray, level: int, side: int, seed: int) -> np.ndarray:
    count, size = len(pixels), pixels.shape[-1]
    corners = patch_corners(level, side, 0, count, size >> level, seed, CPU).numpy()
    found = []
    for number, image in enumerate(pixels.astype(np.float64)):
        colours = [reference_levels(colour, len(levels(size)))[level] for colour in image]
        for top, left in corners[128 * number : 128 * (number + 1)]:
            found.append([colour[top : top + 7, left : left + 7] for colour in colours])
    patches = np.array(found)
    mean, deviation = patches.mean(axis=(0, 2, 3), keepdims=True), patches.std(axis=(0, 2, 3), keepdims=True)
    return ((patches - mean) / deviation).reshape(len(patches), -1)


@pytest.mark.parametrize("size", [32, 64])
def test_sliced_wasserstein_is_the_paper_s(size: int) -> None:
    one, other = images(6, size, 1), images(6, size, 2, contrast=40)
    found = sliced_wasserstein(one, other, 3, WORKFORCE)
    assert list(found) == [f"{side}px" for side in levels(size)]
    for level, distance in enumerate(found.values()):
        sides = [reference_patches(pixels.numpy(), level, side, 3) for side, pixels in enumerate((one, other))]
        directions = normal(3, "evaluation directions", level * DIRECTIONS, DIRECTIONS, 147, CPU).numpy()
        directions /= np.sqrt((directions**2).sum(axis=1, keepdims=True))
        projected = [np.sort(patches @ directions.T, axis=0) for patches in sides]
        assert distance == pytest.approx(1000 * np.abs(projected[0] - projected[1]).mean(), rel=1e-4)


def test_patches_lie_everywhere_in_the_image_and_not_beyond() -> None:
    corners = patch_corners(1, 0, 0, 200, 16, 0, CPU)
    assert (int(corners.min()), int(corners.max())) == (0, 9)
    assert not torch.equal(corners, patch_corners(1, 1, 0, 200, 16, 0, CPU))


def test_the_distance_grows_with_the_difference() -> None:
    real, alike, unlike = images(32, 32, 1), images(32, 32, 2), images(32, 32, 3, contrast=0)
    near, far = (sliced_wasserstein(real, other, 0, WORKFORCE) for other in (alike, unlike))
    assert sum(far.values()) > 1.5 * sum(near.values())


def test_images_of_a_single_colour_have_a_distance() -> None:
    plain = torch.full((4, 3, 32, 32), 100, dtype=torch.uint8)
    assert all(np.isfinite(list(sliced_wasserstein(images(4, 32, 0), plain, 0, WORKFORCE).values())))


# --- multi-scale structural similarity --------------------------------------------------------------------------------


def blurred(image: np.ndarray) -> np.ndarray:
    """One colour through a Gaussian window of 11 pixels; where it reaches over the edge the image is mirrored."""
    line = np.exp(-((np.arange(11) - 5.0) ** 2) / (2 * 1.5**2))
    line /= line.sum()
    padded = np.pad(image, 5, mode="reflect")
    rows = sum(weight * padded[start : start + image.shape[0]] for start, weight in enumerate(line))
    assert isinstance(rows, np.ndarray)
    columns = sum(weight * rows[:, start : start + image.shape[1]] for start, weight in enumerate(line))
    assert isinstance(columns, np.ndarray)
    return columns


def reference_similarity(one: np.ndarray, other: np.ndarray, weights: tuple[float, ...]) -> float:
    """Wang et al. 2003, equation 7, over all colours; structure without the five pixels next to the edge."""
    luminance_floor, contrast_floor = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    product = 1.0
    for scale, weight in enumerate(weights):
        whole, structure = [], []
        for x, y in zip(one, other, strict=True):
            mean_x, mean_y = blurred(x), blurred(y)
            variances = blurred(x * x) - mean_x**2 + blurred(y * y) - mean_y**2
            ratio = (2 * (blurred(x * y) - mean_x * mean_y) + contrast_floor) / (variances + contrast_floor)
            luminance = (2 * mean_x * mean_y + luminance_floor) / (mean_x**2 + mean_y**2 + luminance_floor)
            structure.append(ratio[5:-5, 5:-5])
            whole.append(luminance * ratio)
        value = np.mean(whole if scale == len(weights) - 1 else structure)
        product *= max(float(value), 0.0) ** weight
        one, other = (side.reshape(3, side.shape[1] // 2, 2, -1, 2).mean(axis=(2, 4)) for side in (one, other))
    return product


@pytest.mark.parametrize("size", [32, 64])
def test_ms_ssim_is_that_of_its_paper_over_pairs(size: int) -> None:
    pixels = images(7, size, 5)  # the seventh has no partner
    pairs = [pixels[start : start + 2].numpy().astype(np.float64) for start in (0, 2, 4)]
    expected = np.mean([reference_similarity(one, other, scale_weights(size)) for one, other in pairs])
    assert mean_similarity(pixels, WORKFORCE) == pytest.approx(expected, abs=1e-5)


def test_ms_ssim_of_one_image_again_and_again_is_one() -> None:
    assert mean_similarity(images(1, 32, 0).repeat(6, 1, 1, 1), WORKFORCE) == pytest.approx(1)


@pytest.mark.parametrize(("size", "scales"), [(32, 2), (64, 3), (128, 4), (256, 5)])
def test_smaller_images_have_fewer_scales(size: int, scales: int) -> None:
    assert len(scale_weights(size)) == scales
    assert sum(scale_weights(size)) == pytest.approx(1)


# --- FID and KID ------------------------------------------------------------------------------------------------------


class FixedFeatures(nn.Module):
    """Stands in for the Inception network, whose weights are not at hand: a fixed random projection."""

    num_features = 12

    def __init__(self) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(0)
        self.weight = torch.randn(3 * 8 * 8, self.num_features, generator=random) / 100

    def forward(self, pixels: Tensor) -> tuple[Tensor]:
        small = nn.functional.avg_pool2d(pixels.float(), pixels.shape[-1] // 8)
        return ((small.flatten(1) @ self.weight).relu(),)


class Unpacked(FixedFeatures):
    """The same as torchmetrics wants it."""

    def forward(self, pixels: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(pixels)[0]


@pytest.fixture(scope="module")
def features() -> tuple[Tensor, Tensor]:
    sides = (images(150, 32, 1), images(150, 32, 2, contrast=50))
    one, other = (inception.features(FixedFeatures(), side, WORKFORCE, lambda done: None) for side in sides)
    assert one.shape == (150, 12)
    return one, other


def test_features_are_those_of_the_network_in_the_order_of_the_images() -> None:
    pixels = images(100, 32, 1)
    found = inception.features(FixedFeatures(), pixels, WORKFORCE, lambda done: None)
    assert torch.allclose(found, FixedFeatures()(pixels)[0], rtol=1e-5)


def test_fid_is_the_formula_and_torchmetrics_says_the_same(features: tuple[Tensor, Tensor]) -> None:
    one, other = (side.double().numpy() for side in features)
    first, second = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    mixed = np.sqrt(np.linalg.eigvalsh(root @ second @ root).clip(0)).sum()
    expected = ((one.mean(0) - other.mean(0)) ** 2).sum() + np.trace(first) + np.trace(second) - 2 * mixed
    assert inception.frechet_distance(*features) == pytest.approx(expected, rel=1e-6)

    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(feature=Unpacked())
    metric.update(images(150, 32, 1), real=True)
    metric.update(images(150, 32, 2, contrast=50), real=False)
    assert inception.frechet_distance(*features) == pytest.approx(float(metric.compute()), rel=1e-5)


def test_kid_of_whole_sets_is_the_unbiased_estimate(features: tuple[Tensor, Tensor]) -> None:
    one, other = (side.double().numpy() for side in features)

    def kernel(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        return (left @ right.T / left.shape[1] + 1) ** 3

    n = len(one)
    within = [(kernel(side, side).sum() - np.trace(kernel(side, side))) / (n * (n - 1)) for side in (one, other)]
    expected = sum(within) - 2 * kernel(one, other).mean()
    value, deviation = inception.kernel_distance(*features, seed=0)
    assert value == pytest.approx(expected, rel=1e-6)
    assert deviation == pytest.approx(0, abs=1e-6 * abs(expected))  # every subset is the whole set


def test_kid_draws_its_subsets_from_the_seed(monkeypatch: pytest.MonkeyPatch, features: tuple[Tensor, Tensor]) -> None:
    monkeypatch.setattr(inception, "KID_SUBSET_SIZE", 50)
    first, again, other = (inception.kernel_distance(*features, seed) for seed in (0, 0, 1))
    assert first == again != other


REAL = images(200, 32, 1)


def feature_evaluator(folder: Path, world: World, source: PixelSource) -> Evaluator:
    """FID and KID of 100 images against 100 of `REAL`; put `FixedFeatures` in the network's place."""
    weights = folder / "weights.pth"
    weights.write_bytes(b"of the feature network")
    manifest = Manifest("celeba", "all", 0, len(REAL), (32, 32), (32, 32), (), ())
    data = DataConfig(shards=str(folder), image_size=32, decoder="pillow")
    return Evaluator(data, manifest, source, 8, ("fid", "kid"), 100, 5, weights, Workforce(world, workers=1))


def decoded(batches: Iterable[Iterable[int]]) -> Iterator[Tensor]:
    return (REAL[list(batch)].permute(0, 2, 3, 1) for batch in batches)


def draw(latents: Tensor) -> Tensor:
    """Plain areas of many colours: uint8 [n, 3, 32, 32]."""
    return (127 + 100 * latents[:, :3].tanh()).to(torch.uint8)[:, :, None, None].expand(-1, -1, 32, 32)


def test_fid_and_kid_are_of_drawn_and_real_features_beside_a_floor_and_the_real_ones_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inception, "load_network", lambda path, device: FixedFeatures())
    scores = feature_evaluator(tmp_path, ALONE, decoded).score(draw, with_floor=True)
    order = random_order(5, len(REAL))
    drawn = draw(normal(5, "evaluation latents", 0, 100, 8, CPU))
    real, others, made = (FixedFeatures()(side)[0] for side in (REAL[order[:100]], REAL[order[100:]], drawn))
    fid, kid = scores
    assert fid.value == pytest.approx(inception.frechet_distance(real, made), rel=1e-5)
    assert kid.value == pytest.approx(inception.kernel_distance(real, made, 5)[0], rel=1e-5)
    assert fid.floor == pytest.approx(inception.frechet_distance(real, others), rel=1e-5)
    assert kid.floor == pytest.approx(inception.kernel_distance(real, others, 5)[0], rel=1e-5)
    assert fid.floor_images == 100
    expected = hashlib.sha256(b"of the feature network").hexdigest()
    assert [score.protocol.details["weights_sha256"] for score in scores] == [expected] * 2

    def unreadable(batches: Iterable[Iterable[int]]) -> Iterator[Tensor]:
        raise AssertionError("what was computed of the real images is kept")

    assert feature_evaluator(tmp_path, ALONE, unreadable).score(draw, with_floor=True) == scores


def test_weights_that_only_some_nodes_have_are_used_by_none_unless_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class WithOthers(World):
        def any(self, flag: bool) -> bool:
            return True  # another node has none

    monkeypatch.setattr(evaluating, "find_weights", lambda given, accept_others: tmp_path)
    asked = evaluating.Request(tmp_path, None, None, None, 0, None, None, False, None, None, (), False)
    assert evaluating._weights(asked, ALONE) == tmp_path
    assert evaluating._weights(asked, WithOthers(0, 1, 0, 1, CPU)) is None
    by_name = dataclasses.replace(asked, metrics=("fid",))
    assert evaluating._weights(by_name, WithOthers(0, 1, 0, 1, CPU)) == tmp_path


def test_a_library_that_is_missing_is_told_before_anything_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "find_spec", lambda name: None)
    assert_installed(["swd"])
    with pytest.raises(UserError, match=r"ms_ssim needs torchmetrics; pip install -c constraints.txt -e '.\[after\]'"):
        assert_installed(["swd", "ms_ssim"])


def test_weights_that_are_not_there_are_told_with_the_place_to_put_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert inception.find_weights(None) is None
    message = str(inception.missing_weights("fid"))
    assert inception.WEIGHTS_URL in message
    assert str(tmp_path) in message
    assert "\n" not in message
    with pytest.raises(UserError, match="no such file"):
        inception.find_weights(tmp_path / "none.pth")


def test_weights_of_another_checksum_are_refused_given_or_cached_unless_they_are_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cached = inception.cached_weights()
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"other weights")
    other = hashlib.sha256(b"other weights").hexdigest()
    for given in (None, cached):
        with pytest.raises(UserError, match=rf"sha256 is {other[:8]}.* 6726825d.*--accept-weights") as caught:
            inception.find_weights(given)
        assert "\n" not in str(caught.value)
        assert inception.find_weights(given, accept_others=True) == cached
    monkeypatch.setattr(inception, "WEIGHTS_SHA256", other)
    assert inception.find_weights(None) == cached


def test_the_checksum_begins_as_the_name_of_the_weights_says() -> None:
    assert len(inception.WEIGHTS_SHA256) == 64
    assert inception.WEIGHTS_NAME.endswith(f"-{inception.WEIGHTS_SHA256[:8]}.pth")


def test_training_refuses_weights_of_another_checksum_in_the_words_of_its_settings(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(b"other weights")
    asked = EvaluateConfig(every_images=64, metric="fid", inception_weights=str(path))
    with pytest.raises(UserError, match=r"--evaluate\.accept_weights true"):
        check_scores(asked)
    check_scores(dataclasses.replace(asked, accept_weights=True))


@pytest.mark.parametrize("content", [b"", b"no weights", None])
def test_a_file_that_is_no_weights_is_refused_in_one_line(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    if content is None:
        torch.save({"fc.weight": torch.zeros(2, 2)}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match="does not hold the Inception weights") as caught:
        inception.load_network(path, CPU)
    assert "\n" not in str(caught.value)


# --- protocols, scores and the cache ----------------------------------------------------------------------------------


def protocol(**changes: Any) -> Protocol:
    named = {"metric": "swd", "dataset": "abc", "image_size": 32, "crop": "short_side", "decoder": "pillow on cpu"}
    return Protocol(**({**named, "num_images": 100, "seed": 0, "details": {"levels": [32, 16]}} | changes))


def score_row(images_seen: int, value: float, key: str = protocol().key) -> dict[str, object]:
    named = {"images_seen": images_seen, "metric": "swd", "value": value}
    return {**named, "protocol": protocol().as_dict(), "protocol_key": key}


@pytest.mark.parametrize(
    "changes", [{"num_images": 99}, {"seed": 1}, {"crop": "pggan_128"}, {"details": {"levels": [32]}}, {"dataset": "x"}]
)
def test_protocols_that_differ_have_other_keys_and_say_in_what(changes: dict[str, object]) -> None:
    assert protocol().key == protocol().key != protocol(**changes).key
    (name,) = changes
    (said,) = differences(protocol(**changes).as_dict(), protocol().as_dict())
    assert ("levels" if name == "details" else name) in said


def test_scores_after_the_checkpoint_are_dropped_and_torn_lines_ignored(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    append_scores(path, [score_row(10, 3.0, "k"), score_row(20, 1.0, "k")], "x.pt", during_training=True)
    with path.open("a") as file:
        file.write('{"images_seen": 25, "val')
    append_scores(path, [score_row(30, 0.5, "other")], "x.pt", during_training=True)
    assert [row["images_seen"] for row in read_scores(path)] == [10, 20, 30]
    best = best_score(read_scores(path), "swd", "k")
    assert best is not None
    assert best["images_seen"] == 20
    drop_scores_after(path, 10)
    assert [row["images_seen"] for row in read_scores(path)] == [10]


def test_scores_of_unlike_protocols_are_not_compared(tmp_path: Path) -> None:
    other = protocol(num_images=50)
    newer = score_row(20, 2.0, other.key) | {"protocol": other.as_dict()}
    append_scores(tmp_path / "scores.jsonl", [score_row(10, 3.0), newer], "x.pt", during_training=False)
    assert newest_comparable(tmp_path, protocol())["value"] == 3.0
    with pytest.raises(UserError, match="num_images is 7 and was 50"):
        newest_comparable(tmp_path, protocol(num_images=7))
    with pytest.raises(UserError, match="has no fid"):
        newest_comparable(tmp_path, protocol(metric="fid"))


def test_what_is_kept_is_not_computed_again_unless_it_is_damaged(tmp_path: Path) -> None:
    cache, computed = RealCache(tmp_path, ALONE), []

    def compute() -> Tensor:
        computed.append(1)
        return torch.arange(3.0)

    for _ in range(2):
        assert torch.equal(cache.get("floor-1", compute), torch.arange(3.0))
    assert len(computed) == 1
    (kept,) = (tmp_path / "evaluation").iterdir()
    kept.write_bytes(kept.read_bytes()[:50])
    assert torch.equal(cache.get("floor-1", compute), torch.arange(3.0))
    assert len(computed) == 2


def test_a_folder_that_cannot_be_written_only_means_no_cache(tmp_path: Path) -> None:
    (tmp_path / "evaluation").write_text("in the way")
    assert torch.equal(RealCache(tmp_path, ALONE).get("x", lambda: torch.ones(2)), torch.ones(2))
