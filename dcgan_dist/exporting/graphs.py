"""The generator as a graph of operations that needs none of this package: ONNX and torch.export.

Both take `latents`, float32 [n, latent_size], and give `images`, float32 [n, 3, image_size, image_size] in [-1, 1], for
any n from 1 on.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dcgan_dist.base.files import atomic_write

EXAMPLE_BATCH = 4  # of the latents that a graph is traced with; any but 0 and 1, which are taken for constants


def save_onnx(generator: nn.Module, path: Path, facts: dict[str, Any]) -> None:
    """Writes an ONNX file whose metadata holds `facts` as JSON."""
    with _quiet():
        program = torch.onnx.export(
            generator,
            (_example(facts),),
            input_names=["latents"],
            output_names=["images"],
            dynamic_shapes=({0: torch.export.Dim("n", min=1)},),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    for graph_input in (*model.graph.input, *model.graph.output):
        graph_input.type.tensor_type.shape.dim[0].dim_param = "n"
    entry = model.metadata_props.add()
    entry.key, entry.value = "dcgan_dist", json.dumps(facts, sort_keys=True)
    with atomic_write(path) as file:
        file.write(model.SerializeToString())


def save_torch_export(generator: nn.Module, path: Path, facts: dict[str, Any]) -> None:
    """Writes a .pt2 file for `torch.export.load`, with `facts` as its extra file facts.json."""
    with _quiet():
        program = torch.export.export(
            generator, (_example(facts),), dynamic_shapes=({0: torch.export.Dim("n", min=1)},)
        )
    content = io.BytesIO()
    torch.export.save(program, content, extra_files={"facts.json": json.dumps(facts, sort_keys=True)})
    with atomic_write(path) as file:
        file.write(content.getvalue())


def run_onnx(path: Path, latents: Tensor) -> Tensor:
    """What onnxruntime draws on the CPU from latents, float32 [n, latent_size]."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["images"], {"latents": latents.numpy()})[0])


def run_torch_export(path: Path, latents: Tensor) -> Tensor:
    """What the exported program draws from latents, float32 [n, latent_size]."""
    return torch.export.load(path).module()(latents)


def _example(facts: dict[str, Any]) -> Tensor:
    return torch.zeros(EXAMPLE_BATCH, facts["latent_size"])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses the exporters' own messages."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
