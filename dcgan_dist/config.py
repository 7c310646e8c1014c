"""Every setting of a run, what it means and what it may be. No torch here, so `--help` answers at once."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

IMAGE_SIZES = (32, 64, 128, 256)

Crop = Literal["short_side", "center_108", "center_140", "center_148", "center_160", "pggan_128", "squash"]


@dataclass(frozen=True)
class RunConfig:
    """Which run this is, and where it lives."""

    name: str = "celeba64"
    """Name of the run, as trackers show it."""

    dir: str | None = None
    """Folder for everything the run writes; null means runs/<name>."""

    seed: int = 0
    """Seed of initial weights, sample order, flips and latents: a run is its configuration and this number."""

    resume: str = "auto"
    """auto: go on from the folder's newest good checkpoint, if it has one; never: refuse a folder that has one;
    or the path of a checkpoint to start from."""

    time_limit_minutes: float | None = None
    """Minutes after which the run saves a checkpoint and stops, to be started again."""

    hang_timeout_seconds: int = 120
    """Seconds without a finished step after which a run counts as stuck and is ended; the first may take longer."""

    accept_changes: bool = False
    """Continue from a checkpoint even if settings or images differ from those it was trained with."""

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.dir) if self.dir else Path("runs") / self.name


@dataclass(frozen=True)
class DataConfig:
    """Which images to train on, and how to load them."""

    shards: str = "data/celeba-train"
    """Folder of shards, made by data_prep.celeba, data_prep.images or data_prep.adopt; a path or a URL (s3, gs, hf,
    http). Credentials of a URL come from the environment."""

    image_size: int = 64
    """Height and width of the images in pixels: 32, 64, 128 or 256."""

    crop: Crop = "short_side"
    """Part of the photograph that is kept: a named square, or squash for all of it. FID differs between crops."""

    flip: bool = False
    """Mirror half of the images at random, chosen anew in every epoch."""

    augment: Literal["none", "diff"] = "none"
    """diff: the discriminator sees real and generated images only with changed colours, moved, and with a square cut
    out, differentiably and at random (DiffAugment), which makes a small data set harder to learn by heart."""

    batch_size_per_rank: int = 128
    """Images per rank and step; the global batch is this times the number of ranks."""

    global_batch_size: int | None = None
    """Images per step over all ranks. If set, it overrides batch_size_per_rank, so that a run means the same on any
    number of ranks; if it does not divide evenly, shares differ by one image."""

    decoder: Literal["auto", "dali", "pillow"] = "auto"
    """What turns JPEG into pixels; auto: DALI where it is installed, else Pillow."""

    loader: Literal["auto", "cache", "stream"] = "auto"
    """cache: decode once and keep the pixels in device memory (host memory on CPU); stream: decode each batch as it
    is needed; auto: cache if it fits."""

    keep_pixels: bool = True
    """Keep the pixels of the cache in a file, so that the next start need not decode and a node's CPU ranks share one
    copy in memory."""

    cache_dir: str | None = None
    """Folder, such as one on each node's own disk, for the files of pixels and the tars of a URL; null: pixels/ beside
    the shards, or for a URL a folder under the user's cache folder, named by the data."""

    cache_limit_gib: float | None = None
    """GiB that the tars of a URL may take on a node's disk; those that are needed last are thrown out. null: no
    limit."""


@dataclass(frozen=True)
class ModelConfig:
    """The two networks."""

    latent_size: int = 100
    """Length of the vector an image is drawn from."""

    base_channels: int = 64
    """Channels of the layers at half the image's resolution; every halving doubles them."""

    discriminator_input_norm: bool = True
    """Batch norm after the discriminator's first convolution; the paper leaves it out."""

    spectral_norm: bool = False
    """Divide the weight of each of the discriminator's convolutions by its largest singular value (Miyato et al. 2018).
    Batch norm, which stays, undoes this for the convolutions before it."""

    classes: str = "none"
    """What both networks are told of an image, from its annotations. none: nothing; attributes by name, as
    Smiling,Eyeglasses; class: the class that data_prep.images stored, such as its folder. Grids have rows by class."""


@dataclass(frozen=True)
class OptimConfig:
    """Adam, one for each network."""

    generator_lr: float = 2e-4
    """Learning rate of the generator."""

    discriminator_lr: float = 2e-4
    """Learning rate of the discriminator."""

    beta1: float = 0.5
    """Decay of Adam's mean of gradients."""

    beta2: float = 0.999
    """Decay of Adam's mean of squared gradients."""

    decay_last: float = 0.0
    """Share of the run, at its end, over which both learning rates fall evenly to zero; 0: they stay as they are."""


@dataclass(frozen=True)
class TrainSection:
    """The training itself: its length, loss and arithmetic."""

    epochs: float = 5
    """Passes over the data."""

    total_images: int | None = None
    """Images to train on, over all ranks and epochs. If set, it overrides epochs."""

    loss: Literal["bce", "hinge", "lsgan", "relativistic"] = "bce"
    """What the networks minimise. bce: the paper's, which does not saturate; hinge: margins on logits; lsgan: squared
    distances of logits from 0 and 1; relativistic: how much more real one image is than another, pair by pair."""

    r1_gamma: float = 0.0
    """Weight of a penalty on the discriminator's gradient at real images; 0: none. The gradient is estimated from the
    logits of real images with and without faint noise: half as many images again pass through the discriminator."""

    precision: Literal["auto", "fp32", "bf16", "fp16", "fp64"] = "auto"
    """Arithmetic of the convolutions; auto: bf16 where the hardware computes in it, else fp16 on a GPU and fp32 on a
    CPU. fp32 on recent GPUs is TF32. fp64 is for checking that two runs are equal."""

    deterministic: bool = True
    """Use only GPU kernels that give the same bits every time. Without it some steps are faster, and a resumed run may
    differ from an undisturbed one in the last bits. CPUs always are deterministic."""

    batch_norm: Literal["sync", "local"] = "sync"
    """sync: statistics over the batches of all ranks; local: each rank over its own."""

    accumulate: int = 1
    """Parts in which each rank works through its images of a step, one after the other, adding up gradients: its
    activations then take about so many times less memory. More than one needs batch_norm local, whose statistics are
    then those of a part, and draws the fakes that are reused twice."""

    engine: Literal["auto", "ddp", "graph"] = "auto"
    """ddp: DistributedDataParallel, operation by operation; graph: all gradients of a network averaged in one go, and
    on a GPU the whole step recorded once as a CUDA graph and replayed. The weights are the same. auto: graph."""

    reuse_fakes: bool = True
    """Let the generator learn from the images the discriminator has just learned from, as pytorch/examples does, and
    not from new ones, as the tutorial does: a twelfth less arithmetic, and no worse scores."""

    symmetric_memory: bool = False
    """Keep what ranks exchange, gradients and batch norm's statistics, in NCCL's symmetric memory, which the GPUs of a
    node read without a copy. Off until it is measured on several GPUs; without them it changes nothing."""

    on_collapse: Literal["warn", "stop", "rollback"] = "warn"
    """When the watch on stability sees a sign of collapse. warn: say so; stop: end the run as failed; rollback: go back
    to the best checkpoint, or the last from before it began, and on from there with new latents and half the
    discriminator's rate. A gradient that is not finite stops the run in either of the first two."""

    max_rollbacks: int = 2
    """Rollbacks after which the next sign of collapse ends the run."""


@dataclass(frozen=True)
class EmaConfig:
    """The slowly moving average of the generator."""

    half_life_images: int = 10_000
    """Half-life of the average in images: a weight from so long ago counts half; 0 turns the average off."""

    warmup: float = 0.0
    """Half-life at most this share of the images seen, so that the average soon forgets the untrained weights, as in
    StyleGAN2 (0.05); 0: the half-life is the same from the first step."""


@dataclass(frozen=True)
class SampleConfig:
    """The grid of images drawn from the same latents throughout the run."""

    every_images: int = 50_000
    """Images between two grids."""

    num_images: int = 64
    """Images on a grid."""


@dataclass(frozen=True)
class CheckpointConfig:
    """Checkpoints, from which a stopped run continues."""

    every_images: int = 100_000
    """Images between two checkpoints; one more is written at the end and when the run is asked to stop."""

    keep_last: int = 3
    """Checkpoints kept; older ones are deleted."""

    keep_every_images: int = 0
    """Keep one checkpoint per this many images for ever; 0 for none."""

    keep_best: bool = False
    """Write a checkpoint whenever a score is the best so far, and keep the best one; needs evaluate.every_images."""


@dataclass(frozen=True)
class EvaluateConfig:
    """Scores during training, of the generator's average where there is one."""

    every_images: int = 0
    """Images between two scores; 0 for none."""

    num_images: int = 2048
    """Images drawn for a score, compared with as many real ones."""

    metric: Literal["swd", "fid", "kid"] = "swd"
    """swd: sliced Wasserstein distance, needs no weights; fid, kid: need the Inception weights."""

    inception_weights: str | None = None
    """File of the Inception weights; null: where torch-fidelity downloads them to."""

    accept_weights: bool = False
    """Take Inception weights whose checksum is not that of torch-fidelity's; their scores compare only with scores of
    the same file."""


@dataclass(frozen=True)
class TrackConfig:
    """Where figures, pictures and checkpoints go."""

    every_images: int = 12_800
    """Images between two rows of figures, each the mean since the row before."""

    report: bool = True
    """Draw curves.png and write report.html and report.png when the run ends; takes a few seconds."""

    tensorboard: bool = True
    """Write scalars and grids for TensorBoard."""

    wandb: Literal["auto", "online", "offline", "off"] = "auto"
    """Weights & Biases; auto: online where an API key is found, else off."""

    profile_steps: int = 0
    """Steps, from the twentieth on, of which each rank writes a trace into the run folder's profile/; 0 for none."""

    wandb_project: str = "dcgan_dist"
    """Project on Weights & Biases."""

    wandb_checkpoints: bool = False
    """Send checkpoints to Weights & Biases too, as versions of one artifact; each is about 90 MB at 64 pixels."""


@dataclass(frozen=True)
class TrainConfig:
    """Trains a DCGAN on shards of images, on as many ranks as torchrun starts."""

    run: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainSection = field(default_factory=TrainSection)
    ema: EmaConfig = field(default_factory=EmaConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    track: TrackConfig = field(default_factory=TrackConfig)

    def as_dict(self) -> dict[str, Any]:
        """Plain nested dictionaries: what config.yaml and the checkpoint hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> TrainConfig:
        """The configuration a checkpoint holds; settings that came later than it have their defaults.

        Raises AttributeError, TypeError or ValueError if it is none.
        """
        sections = {}
        for section in fields(cls):
            kind = section.default_factory
            known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
            given = saved.get(section.name, {}).items()
            sections[section.name] = kind(**{name: value for name, value in given if name in known})  # type: ignore
        return cls(**sections)
