"""Images of independent latents, and walks between latents, to the file that the output's name asks for."""

from __future__ import annotations

from pathlib import Path

from dcgan_dist.generating.animation import gif_file, mp4_file
from dcgan_dist.generating.figures import enlargement
from dcgan_dist.generating.latents import LatentsAt, frames_of_loops, rows_of_walks
from dcgan_dist.generating.outputs import grid_file, npz_file, png_folder, save
from dcgan_dist.generating.studio import Studio

STOPS = 4  # latents that a tile of an animation passes before it is back at its first


def save_images(studio: Studio, latents: LatentsAt, num_images: int, out: Path) -> str:
    """The first `num_images` latents as a grid (.png), an array (.npz) or a folder of PNGs; what was made, in words."""
    portions = studio.drawn(latents, num_images)
    if out.suffix == ".png":
        save(portions, grid_file(out), studio.world)
    elif out.suffix == ".npz":
        save(portions, npz_file(out, num_images, studio.image_size), studio.world)
    else:
        save(portions, png_folder(out), studio.world)
    return f"{num_images} images of {studio.image_size}x{studio.image_size}"


def save_walks(studio: Studio, latents: LatentsAt, num_walks: int, steps: int, out: Path) -> str:
    """Walks from latent to latent: each a row of a PNG, or a tile of a GIF or MP4 that plays in a loop."""
    if out.suffix == ".png":
        rows = rows_of_walks(latents, steps, studio.latent_size)
        save(studio.drawn(rows, num_walks * steps), grid_file(out, steps, enlargement(studio.image_size)), studio.world)
        return f"{num_walks} walks of {steps} images, one a row"
    frames = steps * STOPS
    loops = frames_of_loops(latents, num_walks, steps, STOPS, studio.latent_size)
    output = gif_file(out, num_walks) if out.suffix == ".gif" else mp4_file(out, num_walks)
    save(studio.drawn(loops, num_walks * frames), output, studio.world)
    return f"{num_walks} walks through {STOPS} latents each, {frames} frames"
