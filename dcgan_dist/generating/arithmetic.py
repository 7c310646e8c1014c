"""Sums of latents that are sums of what the images show: figure 7 of Radford et al. 2016.

The mean latent of images that show something, minus that of images that do not, plus that of others that do not, gives
an image of the others that does.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor

from dcgan_dist.base.counter_random import stream_seed
from dcgan_dist.base.errors import UserError
from dcgan_dist.data.loader import Data
from dcgan_dist.generating.annotations import attribute_labels
from dcgan_dist.generating.figures import Sheet
from dcgan_dist.generating.latents import LatentsAt, listed, noise_around, picked
from dcgan_dist.generating.probe import Probe, balanced_accuracy, fit_probe
from dcgan_dist.generating.studio import Studio

Groups = tuple[list[int], list[int], list[int]]
"""Numbers of the images whose mean latents A, B and C make A - B + C."""

POOL = 2048  # generated images that groups are picked from
PROBE_IMAGES = 4096  # real images that a probe is fitted on and, a quarter of them, checked with
CASES = 64
GROUP = 3  # images a group, as in the paper
CLEAREST = POOL // 20
WORST_ACCURACY = 0.65
NOISE = 0.25  # the paper's, uniform around the result


# --- an attribute -----------------------------------------------------------------------------------------------------


def groups_with_attribute(
    studio: Studio, data: Data, attribute: str, latents: LatentsAt, seed: int, num_rows: int
) -> list[Groups]:
    """Picks groups that show and do not show an attribute, and prints in how many cases the sum brings it about.

    Raises UserError if there is no such attribute, the discriminator does not see it or the generator does not draw it.
    """
    probe = _checked_probe(studio, data, attribute)
    margins = studio.world.broadcast_object(probe.margins(studio.drawn_features(latents, POOL)))
    cases = pick_cases(margins, attribute, seed)
    means = torch.stack([mean_latents(latents, groups) for groups in cases])  # [CASES, 3, latent_size]
    sums = means[:, 0] - means[:, 1] + means[:, 2]
    after = probe.margins(studio.drawn_features(listed(sums), CASES))
    before = probe.margins(studio.drawn_features(listed(means[:, 2]), CASES))
    if studio.world.is_main:
        print(f"{attribute}: {(margins > 0).float().mean():.0%} of {POOL} generated images show it")
        print(
            f"{attribute}: added in {CASES} cases, it shows in {int((after > 0).sum())} of them and did in "
            f"{int((before > 0).sum())}; the probe sees more of it in {int((after > before).sum())}"
        )
    return cases[:num_rows]


def _labels(data: Data, attribute: str, count: int, fitted: int) -> Tensor:
    """Which of the first images show it: bool [count], both kinds among those to fit and among those to check."""
    shows = attribute_labels(data.shards, attribute, count)
    for part in (shows[:fitted], shows[fitted:]):
        if part.all() or not part.any():
            raise UserError(f"--arithmetic {attribute}: too few images of {data.shards.folder} differ in it")
    return shows


def _checked_probe(studio: Studio, data: Data, attribute: str) -> Probe:
    """A probe fitted on three quarters of the images and checked on the rest, the same on every rank."""
    count = min(PROBE_IMAGES, data.manifest.samples)
    fitted = count * 3 // 4
    shows = studio.world.together(_labels, data, attribute, count, fitted)
    features = studio.real_features(data, count)
    probe = studio.world.broadcast_object(fit_probe(features[:fitted], shows[:fitted]))
    accuracy = balanced_accuracy(probe, features[fitted:], shows[fitted:])
    if studio.world.is_main:
        print(f"{attribute}: {shows.float().mean():.0%} of {count} training images show it")
        print(
            f"{attribute}: a linear probe on the discriminator's features is right on {accuracy:.1%} of "
            f"{count - fitted} images it was not fitted on (mean over those with and without)"
        )
    if accuracy < WORST_ACCURACY:
        raise UserError(
            f"--arithmetic {attribute}: the discriminator's features hardly tell it ({accuracy:.0%}, chance is 50%); "
            "choose another attribute, or a checkpoint that saw more images"
        )
    return probe


def pick_cases(margins: Tensor, attribute: str, seed: int) -> list[Groups]:
    """Groups of three for every case, from the images that show the attribute most and least clearly.

    The third group is of any other images that do not show it. Raises UserError if too few do, or too few do not.
    """
    clearest = margins.argsort(descending=True, stable=True)
    shows, lacks = clearest[: int((margins > 0).sum())], clearest.flip(0)[: int((margins <= 0).sum())]
    if len(shows) < GROUP or len(lacks) < 2 * GROUP:
        raise UserError(
            f"--arithmetic {attribute}: of {len(margins)} generated images {len(shows)} show it and {len(lacks)} do "
            f"not, {GROUP} and {2 * GROUP} are needed; choose another attribute"
        )
    cases = []
    for case in range(CASES):
        random = torch.Generator().manual_seed(stream_seed(seed, "arithmetic groups", case))
        pools = (shows[:CLEAREST], lacks[:CLEAREST], lacks)
        first, second, rest = (pool[torch.randperm(len(pool), generator=random)].tolist() for pool in pools)
        second = second[:GROUP]
        cases.append((first[:GROUP], second, [image for image in rest if image not in second][:GROUP]))
    return cases


# --- picked images ----------------------------------------------------------------------------------------------------


def parse_groups(text: str) -> Groups:
    """Reads "1,2,3 - 4,5,6 + 7,8,9". Raises UserError if it is not of this form."""
    match = re.fullmatch(r"(.+)-(.+)\+(.+)", text)
    groups = [_numbers(part) for part in match.groups()] if match else []
    if len(groups) != 3 or not all(groups):
        raise UserError(
            f"--arithmetic-indices {text!r}: should be numbers of images from 0 on, as in '1,2,3 - 4,5,6 + 7,8,9'"
        )
    return groups[0], groups[1], groups[2]


def _numbers(text: str) -> list[int]:
    """The numbers between commas; none if one is no number of an image."""
    words = [word.strip() for word in text.split(",")]
    return [int(word) for word in words] if all(re.fullmatch("[0-9]{1,9}", word) for word in words) else []


def mean_latents(latents: LatentsAt, groups: Groups) -> Tensor:
    """The three groups' mean latents: [3, latent_size]."""
    return torch.stack([picked(latents, group).mean(0) for group in groups])


# --- the figure -------------------------------------------------------------------------------------------------------


def draw_figure(
    studio: Studio, latents: LatentsAt, rows: list[Groups], captions: tuple[str, str, str], seed: int
) -> Sheet:
    """Each row: the groups' images with the image of their mean below, and the sum's image amid eight close to it."""
    images = studio.all_drawn(*_all_latents(latents, rows, seed, studio.latent_size))
    longest = max(len(group) for groups in rows for group in groups)
    height = max(longest + 1.25, 3)
    sheet = Sheet(7.5, len(rows) * (height + 0.25) - 0.25, studio.image_size)
    for column, caption in zip((0, 1.5, 3, 4.5), (*captions, "the sum (middle), and close to it"), strict=True):
        sheet.caption(caption, column, 3 if column == 4.5 else 1)
    position = 0
    for number, groups in enumerate(rows):
        top = number * (height + 0.25)
        for column, group in zip((0, 1.5, 3), groups, strict=True):
            for place in range(len(group)):
                sheet.place(images[position + place], column, top + longest - len(group) + place)
            sheet.place(images[position + len(group)], column, top + longest + 0.25)
            position += len(group) + 1
        for column, sign in ((1, "-"), (2.5, "+"), (4, "=")):
            sheet.sign(sign, column, top + longest + 0.25)
        for place in range(9):
            sheet.place(images[position + place], 4.5 + place % 3, top + height - 3 + place // 3)
        position += 9
    return sheet


def _all_latents(latents: LatentsAt, rows: list[Groups], seed: int, size: int) -> tuple[LatentsAt, int]:
    """What a figure shows, row by row: each group's images and its mean; then the sum in the middle of its noise."""
    table = []
    for number, groups in enumerate(rows):
        means = mean_latents(latents, groups)
        for group, mean in zip(groups, means, strict=True):
            table += [picked(latents, group), mean[None]]
        result = means[0] - means[1] + means[2]
        around = result.repeat(8, 1)
        around[:, :size] = noise_around(result[:size], seed, 8 * number, 8, NOISE)  # conditions stay
        table.append(torch.cat([around[:4], result[None], around[4:]]))
    together = torch.cat(table)
    return listed(together), len(together)


def save_arithmetic(
    studio: Studio, latents: LatentsAt, rows: list[Groups], captions: tuple[str, str, str], seed: int, out: Path
) -> None:
    """Draws the figure and writes it on rank 0."""
    sheet = draw_figure(studio, latents, rows, captions, seed)
    studio.world.on_main(sheet.save, out)
