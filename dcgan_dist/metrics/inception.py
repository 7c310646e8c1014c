"""FID and KID: distances between the features that the Inception network of 2015 finds in two sets of images.

Network, resizing and arithmetic are torch-fidelity's, which agrees with the original TensorFlow code.
Its weights (Szegedy et al. 2015) are not part of any package: they come from a file.
"""

from __future__ import annotations

import hashlib
import socket
from pathlib import Path

import torch
from torch import Tensor, nn

from dcgan_dist.base.counter_random import stream_seed
from dcgan_dist.base.errors import UserError, in_one_line
from dcgan_dist.base.waiting import Advance, told_if_long
from dcgan_dist.distributed.workforce import CHUNK, Workforce
from dcgan_dist.metrics.image_sets import gathered

WEIGHTS_NAME = "weights-inception-2015-12-05-6726825d.pth"
WEIGHTS_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"  # of the 95,628,359 bytes
WEIGHTS_URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{WEIGHTS_NAME}"
DOWNLOAD_TIMEOUT_SECONDS = 20.0  # without an answer
LAYER = "2048"  # the last pooling layer
KID_SUBSETS, KID_SUBSET_SIZE = 100, 1000  # Binkowski et al. 2018, section 4


def cached_weights() -> Path:
    """Where torch-fidelity and torchmetrics keep the weights once they have been downloaded."""
    return Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS_NAME


def find_weights(given: Path | None, accept_others: bool = False) -> Path | None:
    """The file of weights: the one that is given, else the cached one if it is there.

    Raises UserError if one is given and is not there, or, without `accept_others`, if its checksum is another than that
    of the weights with which published FIDs are computed.
    """
    path = given or cached_weights()
    if not path.is_file():
        if given is None:
            return None
        raise UserError(f"{given}: no such file of Inception weights; get {WEIGHTS_URL}")
    found = WEIGHTS_SHA256 if accept_others else weights_checksum(path)
    if found != WEIGHTS_SHA256:
        raise UserError(
            f"{path}: its sha256 is {found[:8]}... and that of the Inception weights {WEIGHTS_SHA256[:8]}..., so no "
            f"score would compare with a published one; get {WEIGHTS_URL}, or use the file all the same with "
            "--accept-weights"
        )
    return path


def download_weights() -> Path | None:
    """Fetches the weights into the cache and checks their checksum; None if that cannot be."""
    target, patience = cached_weights(), socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT_SECONDS)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with told_if_long(WEIGHTS_URL, None, f"it is given up after {DOWNLOAD_TIMEOUT_SECONDS:.0f} seconds of silence"):
            torch.hub.download_url_to_file(WEIGHTS_URL, str(target), hash_prefix=WEIGHTS_SHA256)
    except (OSError, RuntimeError):  # no network, no room, another file than the one that is meant
        return None
    finally:
        socket.setdefaulttimeout(patience)
    return target


def missing_weights(metric: str) -> UserError:
    """Returns the error for a metric whose weights are neither cached nor downloadable."""
    return UserError(
        f"{metric}: there are no Inception weights on this machine and no way to download them; get {WEIGHTS_URL} "
        f"and put it at {cached_weights()}, or name it with --inception-weights FILE"
    )


def weights_checksum(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal. Raises UserError if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); get {WEIGHTS_URL}") from None


def load_network(path: Path, device: torch.device) -> nn.Module:
    """The feature network: uint8 [n, 3, h, w] to a tuple of float32 [n, 2048]. UserError if the file holds no such."""
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError:
        raise UserError("fid and kid need torch-fidelity; pip install -c constraints.txt -e '.[after]'") from None
    try:
        torch.load(path, map_location="cpu", weights_only=True)  # torch-fidelity itself would run code in the file
        network = FeatureExtractorInceptionV3("inception-v3-compat", [LAYER], feature_extractor_weights_path=str(path))
    except Exception as error:  # torch, pickle and zipfile raise all kinds of things
        reason = in_one_line(error, 120)
        raise UserError(f"{path}: does not hold the Inception weights ({reason}); get {WEIGHTS_URL}") from None
    return network.to(device)


@torch.no_grad()
def features(network: nn.Module, images: Tensor, workforce: Workforce, advance: Advance) -> Tensor:
    """What `network` finds in images, uint8 [n, 3, h, w] on every rank: float32 [n, d], on the host of every rank."""

    def compute(start: int) -> Tensor:
        chosen = torch.arange(start, start + CHUNK, device=images.device).clamp_max(len(images) - 1)
        with torch.no_grad():  # a thread has its own setting
            (found,) = network(images[chosen])
        return found

    return gathered(workforce, len(images), workforce.chunk_starts(len(images)), compute, advance).cpu()


def frechet_distance(one: Tensor, other: Tensor) -> float:
    """FID of two sets of features [n, d]: the distance of the two Gaussians fitted to them (Heusel et al. 2017)."""
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

    statistics = [fid_features_to_statistics(side.double()) for side in (one, other)]
    return float(fid_statistics_to_metric(*statistics, verbose=False)[KEY_METRIC_FID])


def kernel_distance(one: Tensor, other: Tensor, seed: int) -> tuple[float, float]:
    """KID of two sets of features [n, d], and its deviation over the subsets (Binkowski et al. 2018)."""
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

    found = kid_features_to_metric(
        one.double(),
        other.double(),
        kid_subsets=KID_SUBSETS,
        kid_subset_size=subset_size(len(one)),
        rng_seed=stream_seed(seed, "evaluation subsets") % 2**32,
        verbose=False,
    )
    return float(found[KEY_METRIC_KID_MEAN]), float(found[KEY_METRIC_KID_STD])


def subset_size(num_images: int) -> int:
    """Images in each of KID's subsets."""
    return min(KID_SUBSET_SIZE, num_images)
