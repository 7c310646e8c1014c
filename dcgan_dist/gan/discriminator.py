"""The discriminator: an image becomes one number by halving it until a 4x4 map is left."""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call


class Discriminator(nn.Module):
    """DCGAN's discriminator (Radford et al. 2016), the generator's mirror image.

    Takes images [n, 3, image_size, image_size] in [-1, 1]; returns logits [n], above zero for "real". `input_norm`
    puts batch norm after the first convolution as well; the paper leaves it out there.

    With `num_classes` it also takes conditions [n, num_classes], 1 where the image is said to show a class and else 0:
    to the logit comes the product of the last maps with each of these classes' own weights, the projection of Miyato
    and Koyama (2018, equation 3).
    """

    def __init__(self, image_size: int, base_channels: int, input_norm: bool, num_classes: int = 0) -> None:
        super().__init__()
        self.num_classes = num_classes
        halvings = int(math.log2(image_size)) - 3  # from half the image size to 4 pixels
        channels = [base_channels * 2**power for power in range(halvings + 1)]
        self.from_image = _halving(3, base_channels, norm=input_norm)
        self.downsample = nn.Sequential(
            *(_halving(narrow, wide, norm=True) for narrow, wide in itertools.pairwise(channels))
        )
        self.to_logit = nn.Conv2d(channels[-1], 1 + num_classes, kernel_size=4, bias=False)

    def forward(self, images: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Judges each image."""
        maps = self.downsample(self.from_image(images))  # [n, channels, 4, 4]
        logits = self.to_logit(maps)  # [n, 1 + num_classes, 1, 1]
        if conditions is None:
            return logits.flatten()
        return logits[:, 0, 0, 0] + (logits[:, 1:, 0, 0] * conditions).sum(1)


def _halving(channels_in: int, channels_out: int, norm: bool) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(channels_in, channels_out, kernel_size=4, stride=2, padding=1, bias=False),
        nn.LeakyReLU(0.2, inplace=True),
    ]
    if norm:
        layers.insert(1, nn.BatchNorm2d(channels_out))
    return nn.Sequential(*layers)


# --- spectral norm ----------------------------------------------------------------------------------------------------

FIRST_POWER_STEPS = 15
"""From a random vector to one near the singular vector; as many as torch's parametrisation takes."""


class SpectralConv2d(nn.Module):
    """A convolution that divides its weight by the weight's largest singular value (Miyato et al. 2018, equation 8).

    For that the weight is a matrix [channels_out, channels_in * 16]. Its left singular vector, `left` [channels_out],
    is approached by the power method (algorithm 1), a step at a time. The parameter `weight` is the one before the
    division, under the name it has without it, so a state dict does not tell the two layers apart.
    """

    left: Tensor

    def __init__(self, layer: nn.Conv2d, random: torch.Generator) -> None:
        """`layer` goes on to do the convolution, with another weight each time; `random` gives the first vector."""
        super().__init__()
        self.weight = layer.weight  # the same tensor, not a copy: an optimizer may hold it already
        self._layer = (layer,)  # in a tuple, or its weight would be in the state dict a second time
        start = torch.randn(len(layer.weight), generator=random, dtype=torch.float64)
        self.register_buffer("left", start.to(layer.weight), persistent=False)
        self.take_power_steps(FIRST_POWER_STEPS)

    def forward(self, input: Tensor) -> Tensor:
        """Convolves."""
        with torch.autocast(self.weight.device.type, enabled=False):
            weight = _divided(self.weight, self.left)
        return functional_call(self._layer[0], {"weight": weight}, (input,))

    @torch.no_grad()
    def take_power_steps(self, steps: int) -> None:
        """Moves `left` towards the singular vector. Not between a forward pass and its backward pass."""
        matrix = _matrix(self.weight)
        for _ in range(steps):
            self.left.copy_(F.normalize(matrix @ _right(matrix, self.left), dim=0))


def use_spectral_norm(network: nn.Module, random: torch.Generator) -> None:
    """Replaces every convolution inside `network`, all of them without bias; parameters stay the same objects."""
    for parent in list(network.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, nn.Conv2d):
                setattr(parent, name, SpectralConv2d(layer, random))


def take_power_step(network: nn.Module) -> None:
    """Takes the step of the power method that belongs to an update of the weights, in every layer that has one."""
    for _, layer in _spectral_layers(network):
        layer.take_power_steps(1)


def singular_vectors(network: nn.Module) -> dict[str, Tensor]:
    """Returns the `left` of every layer that has one, by the layer's name: what a state dict lacks."""
    return {name: layer.left for name, layer in _spectral_layers(network)}


def load_singular_vectors(network: nn.Module, vectors: dict[str, Tensor] | None) -> None:
    """Takes over what `singular_vectors` gave, or if there is none, approaches those of new weights.

    Raises KeyError if a vector is missing and RuntimeError if it is of another size.
    """
    for name, layer in _spectral_layers(network):
        if vectors is None:
            layer.take_power_steps(FIRST_POWER_STEPS)
        else:
            layer.left.copy_(vectors[name].view_as(layer.left))


@torch.no_grad()
def divide_by_singular_values(network: nn.Module, vectors: dict[str, Tensor]) -> None:
    """Makes a network of ordinary layers compute what the one with spectral norm does, whose weights it has.

    Raises AttributeError, KeyError or RuntimeError if the vectors are not those of such a network.
    """
    for name, left in vectors.items():
        weight = network.get_parameter(f"{name}.weight")
        weight.copy_(_divided(weight, left.to(weight)))


def _spectral_layers(network: nn.Module) -> list[tuple[str, SpectralConv2d]]:
    return [(name, layer) for name, layer in network.named_modules() if isinstance(layer, SpectralConv2d)]


def _divided(weight: Tensor, left: Tensor) -> Tensor:
    """The weight over its largest singular value, which is left^T W right; the gradient knows of the division."""
    matrix = _matrix(weight)
    with torch.no_grad():
        right = _right(matrix, left)
    return weight / (left @ (matrix @ right))


def _matrix(weight: Tensor) -> Tensor:
    """[channels_out, channels_in, 4, 4] as [channels_out, 4 4 channels_in], no copy where channels are last."""
    return weight.permute(0, 2, 3, 1).flatten(1)


def _right(matrix: Tensor, left: Tensor) -> Tensor:
    """The right singular vector that belongs to `left`."""
    return F.normalize(left @ matrix, dim=0)
