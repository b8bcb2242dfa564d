"""Augmentation: change the tempo, the order of sections, and the sound of a sequence.

The key stays, as the network processes every sequence in all twelve keys.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import interpolate


def augment(x: Tensor, frames: Tensor, crop: int, strength: float, rng: torch.Generator) -> Tensor:
    """Cut a stretch of `crop` frames out of each sequence, and alter it.

    The sequences, shape=(B, T, 2, 12), are in [0, 1], padded with zeros, and on the CPU. `frames`,
    shape=(B,), are their lengths, at least 2. With strength 0, only time changes; the highest
    strength is 1.
    """
    return _sound(_time(x, frames, crop, strength, rng), strength, rng)


def _time(x: Tensor, frames: Tensor, crop: int, strength: float, rng: torch.Generator) -> Tensor:
    """Change the tempo (0.65 to 1.5, with rubato) and the start, and jump up to twice."""
    b = len(x)
    length = frames[:, None].float()
    clock = torch.arange(crop)[None]
    wander = interpolate(torch.randn(b, 1, 8, generator=rng), size=crop, mode="linear")[:, 0]
    slowest, fastest = math.log(0.65), math.log(1.5)
    tempo = torch.exp(slowest + (fastest - slowest) * torch.rand(b, 1, generator=rng))
    at = torch.cumsum(tempo * torch.exp(0.08 * strength * wander), dim=1)
    slack = length - at[:, -1:]
    at = at + torch.rand(b, 1, generator=rng) * torch.where(slack > 0, slack, length)
    for _ in range(2):
        jumps = torch.rand(b, 1, generator=rng) < 0.3
        when = crop * (0.2 + 0.6 * torch.rand(b, 1, generator=rng))
        where = length * (torch.rand(b, 1, generator=rng) - 0.5)
        at = at + (jumps & (clock > when)) * where
    at = torch.remainder(at, length - 1)
    left = at.floor().long()
    right = torch.minimum(left + 1, frames[:, None] - 1)
    share = (at - left)[..., None, None]
    row = torch.arange(b)[:, None]
    return x[row, left] * (1 - share) + x[row, right] * share


def _sound(x: Tensor, strength: float, rng: torch.Generator) -> Tensor:
    """Add other music, overtones, detuning, reverberation and noise; change loudness and timbre."""
    b, crop = x.shape[:2]

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(b, 1, 1, 1, generator=rng)

    def sometimes(p: float) -> Tensor:
        return (torch.rand(b, 1, 1, 1, generator=rng) < p * strength).float()

    # Other music underneath, overtones (fifth, major third), tuning, reverberation.
    shift = int(torch.randint(12, (), generator=rng))
    other = x[torch.randperm(b, generator=rng)].roll(shift, 3)
    x = torch.maximum(x, sometimes(0.3) * uniform(0, 0.5) * other)
    x = x + sometimes(0.4) * (uniform(0, 0.3) * x.roll(7, 3) + uniform(0, 0.2) * x.roll(4, 3))
    leak = sometimes(0.3) * uniform(0, 0.25)
    x = (1 - leak) * x + leak * x.roll(1, 3)
    blur = sometimes(0.4)
    x = (1 - blur) * x + blur * (x.roll(1, 1) + x + x.roll(-1, 1)) / 3
    # Loudness curve, timbre, noise, a gap.
    x = x.clamp(min=1e-4) ** torch.exp(0.35 * strength * torch.randn(b, 1, 2, 1, generator=rng))
    x = x * torch.exp(0.15 * strength * torch.randn(b, 1, 2, 12, generator=rng))
    x = x + sometimes(0.5) * uniform(0, 0.12) * torch.rand(x.shape, generator=rng)
    start, gap = uniform(0, 0.9) * crop, uniform(3, 20)
    frame = torch.arange(crop)[None, :, None, None]
    x = x * (1 - sometimes(0.3) * ((frame >= start) & (frame < start + gap)))
    # Sometimes a channel is missing, so that the other channel has to suffice.
    draw = torch.rand(b, 1, 1, generator=rng)
    lost = 0.15 * strength
    return x * torch.stack([draw >= lost, draw <= 1 - lost], dim=2).float()
