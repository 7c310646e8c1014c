"""Scores a generator against real images, on all ranks together; the same scores on any number of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dcgan_dist.base.errors import UserError
from dcgan_dist.base.waiting import Stage
from dcgan_dist.config import DataConfig
from dcgan_dist.data.classes import Classes
from dcgan_dist.data.loader import PixelSource, decoder_name
from dcgan_dist.data.shard_cache import shard_folder
from dcgan_dist.data.shard_format import Manifest
from dcgan_dist.distributed.workforce import Workforce
from dcgan_dist.metrics import inception, ms_ssim, sliced_wasserstein
from dcgan_dist.metrics.image_sets import Draw, RealCache, drawn_images, random_order, real_images
from dcgan_dist.metrics.scores import Protocol

Metric = Literal["swd", "ms_ssim", "fid", "kid"]
METRICS: tuple[Metric, ...] = ("swd", "ms_ssim", "fid", "kid")
WITH_WEIGHTS: tuple[Metric, ...] = ("fid", "kid")

LIBRARIES: dict[Metric, str] = {"ms_ssim": "torchmetrics", "fid": "torch_fidelity", "kid": "torch_fidelity"}


def assert_installed(metrics: Iterable[Metric]) -> None:
    """Raises UserError if a library is missing that one of the metrics needs."""
    for metric in metrics:
        library = LIBRARIES.get(metric)
        if library and find_spec(library) is None:
            name = library.replace("_", "-")
            raise UserError(
                f"{metric} needs {name}; pip install -c constraints.txt -e '.[after]', or ask for other metrics"
            )


@dataclass(frozen=True)
class Score:
    """One figure, and what it depends on."""

    value: float
    parts: dict[str, float]
    """What it is made of: the levels of swd, the deviation of kid."""
    protocol: Protocol
    floor: float | None = None
    """The same figure of real images against other real images: no generator does better."""
    floor_images: int | None = None
    """Images on either side of the floor; fewer than the score's where the data has too few."""

    def row(self, images_seen: int, network: Literal["ema", "generator"]) -> dict[str, Any]:
        """One line of scores.jsonl."""
        return {
            "images_seen": images_seen,
            "metric": self.protocol.metric,
            "value": self.value,
            "parts": self.parts,
            "floor": self.floor,
            "floor_images": self.floor_images,
            "network": network,
            "protocol": self.protocol.as_dict(),
            "protocol_key": self.protocol.key,
        }


@dataclass
class Evaluator:
    """Scores generators under one protocol a metric. All ranks make the same calls."""

    data: DataConfig
    manifest: Manifest
    source: PixelSource
    """Any of the real images, whole and not mirrored."""
    latent_size: int
    metrics: tuple[Metric, ...]
    num_images: int
    """Images on either side; at most as many as there are real ones."""
    seed: int
    weights: Path | None
    """File of the Inception weights; only fid and kid need it."""
    workforce: Workforce
    classes: Classes | None = None
    """What all real images show, if the generator is told of it."""
    shown: str | None = None
    """What all images show that are compared, as `--class` names it; None: whatever real images do."""
    stage: Stage = field(default=lambda name, images: lambda done: None)

    def score(self, draw: Draw, with_floor: bool = False) -> list[Score]:
        """The scores of a generator, one for each metric."""
        advance = self.stage("drawing", self.num_images)
        shown = self.classes.of(self.order[: self.num_images]) if self.classes else None
        drawn = drawn_images(draw, self.seed, self.latent_size, self.num_images, self.workforce, advance, shown)
        found = self._features(drawn, "drawn") if set(self.metrics) & set(WITH_WEIGHTS) else None
        return [self._score(metric, drawn, found, with_floor) for metric in self.metrics]

    def _score(self, metric: Metric, drawn: Tensor, found: Tensor | None, with_floor: bool) -> Score:
        self.stage(metric, 0)
        protocol = self.protocol(metric)
        if found is not None and metric in WITH_WEIGHTS:
            value, parts = self._feature_distance(metric, self._real_features, found)
        elif metric == "swd":
            value, parts = self._patch_distance(self._real, drawn)
        else:
            value, parts = ms_ssim.mean_similarity(drawn, self.workforce), {}
        if not with_floor:
            return Score(value, parts, protocol)
        self.stage(f"floor of {metric}", 0)
        floor = self._cache.get(f"floor-{protocol.key}", lambda: torch.tensor(self._floor(metric)).double())
        return Score(value, parts, protocol, float(floor), self._floor_images(metric))

    def protocol(self, metric: Metric | Literal["features"]) -> Protocol:
        """Returns everything a metric's score depends on besides the generator."""
        size = self.data.image_size
        details: dict[str, Any] = {}
        if metric == "swd":
            details = {"levels": sliced_wasserstein.levels(size), "directions": sliced_wasserstein.DIRECTIONS}
        elif metric == "ms_ssim":
            details = {"scale_weights": list(ms_ssim.scale_weights(size)), "sigma": ms_ssim.SIGMA}
        elif self.weights:
            details = {"weights_sha256": self._weights_checksum, "layer": inception.LAYER}
        if metric == "kid":
            details |= {"subsets": inception.KID_SUBSETS, "subset_size": inception.subset_size(self.num_images)}
        if self.shown is not None:
            details["class"] = self.shown
        return Protocol(
            metric=metric,
            dataset=self.manifest.fingerprint,
            image_size=size,
            crop=self.data.crop,
            decoder=f"{decoder_name(self.data)} on {self.workforce.world.device.type}",
            num_images=self.num_images,
            seed=self.seed,
            details=details,
        )

    # --- real images against real images ------------------------------------------------------------------------------

    def _floor_images(self, metric: Metric) -> int:
        # The likeness of images is that within one set; a distance needs two that have no image in common.
        return self.num_images if metric == "ms_ssim" else min(self.num_images, len(self.order) // 2)

    def _floor(self, metric: Metric) -> float:
        count = self._floor_images(metric)
        if metric == "ms_ssim":
            return ms_ssim.mean_similarity(self._real, self.workforce)
        one, other = self._real[:count], self._real_images(count, count)
        if metric == "swd":
            return self._patch_distance(one, other)[0]
        found = self._features(other, "other real")
        return self._feature_distance(metric, self._real_features[:count], found)[0]

    # --- what the metrics are computed from ---------------------------------------------------------------------------

    def _patch_distance(self, one: Tensor, other: Tensor) -> tuple[float, dict[str, float]]:
        by_level = sliced_wasserstein.sliced_wasserstein(one, other, self.seed, self.workforce)
        return sum(by_level.values()) / len(by_level), by_level

    def _feature_distance(self, metric: Metric, one: Tensor, other: Tensor) -> tuple[float, dict[str, float]]:
        if metric == "fid":
            return inception.frechet_distance(one, other), {}
        value, deviation = inception.kernel_distance(one, other, self.seed)
        return value, {"deviation": deviation}

    @cached_property
    def _real(self) -> Tensor:
        return self._real_images(0, self.num_images)

    def _real_images(self, first: int, count: int) -> Tensor:
        chosen = self.order[first : first + count]
        return real_images(self.source, chosen, self.workforce, self.stage("decoding", count))

    @cached_property
    def order(self) -> list[int]:
        """Numbers of the real images that may be compared with, in the order in which they are taken."""
        order = random_order(self.seed, self.manifest.samples)
        if self.classes is None or self.shown is None:
            return order
        showing = set(self.classes.showing(self.classes.wanted(self.shown)))
        return [image for image in order if image in showing]

    @cached_property
    def _real_features(self) -> Tensor:
        name = f"features-{self.protocol('features').key}"
        return self._cache.get(name, lambda: self._features(self._real, "real"))

    def _features(self, images: Tensor, which: str) -> Tensor:
        advance = self.stage(f"features of {which} images", len(images))
        return inception.features(self._network, images, self.workforce, advance)

    def load(self) -> None:
        """Loads the network that the metrics need, if they need one. Raises UserError if its file holds no such."""
        if set(self.metrics) & set(WITH_WEIGHTS):
            assert self._network

    @cached_property
    def _network(self) -> nn.Module:
        assert self.weights
        return inception.load_network(self.weights, self.workforce.world.device)

    @cached_property
    def _weights_checksum(self) -> str:
        assert self.weights
        return inception.weights_checksum(self.weights)

    @cached_property
    def _cache(self) -> RealCache:
        return RealCache(shard_folder(self.data, self.manifest), self.workforce.world)
