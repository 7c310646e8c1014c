"""The generator as a graph of operations that needs none of this package: ONNX and torch.export.

Both take `latents`, float32 [n, latent_size], and give `images`, float32 [n, 3, image_size, image_size] in [-1, 1], for
any n from 1 on. With classes both also take `conditions`, float32 [n, classes].
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

INPUTS = ("latents", "conditions")
EXAMPLE_BATCH = 4  # of the latents that a graph is traced with; any but 0 and 1, which are taken for constants


def save_onnx(generator: nn.Module, path: Path, facts: dict[str, Any]) -> None:
    """Writes an ONNX file whose metadata holds `facts` as JSON."""
    inputs = _example(facts)
    with _quiet():
        program = torch.onnx.export(
            generator,
            inputs,
            input_names=INPUTS[: len(inputs)],
            output_names=["images"],
            dynamic_shapes=_any_number_of(inputs),
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
    inputs = _example(facts)
    with _quiet():
        program = torch.export.export(generator, inputs, dynamic_shapes=_any_number_of(inputs))
    content = io.BytesIO()
    torch.export.save(program, content, extra_files={"facts.json": json.dumps(facts, sort_keys=True)})
    with atomic_write(path) as file:
        file.write(content.getvalue())


def run_onnx(path: Path, *inputs: Tensor) -> Tensor:
    """What onnxruntime draws on the CPU from latents and, where there are classes, conditions."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    given = {name: value.numpy() for name, value in zip(INPUTS, inputs, strict=False)}
    return torch.from_numpy(session.run(["images"], given)[0])


def run_torch_export(path: Path, *inputs: Tensor) -> Tensor:
    """What the exported program draws from latents and, where there are classes, conditions."""
    return torch.export.load(path).module()(*inputs)


def _example(facts: dict[str, Any]) -> tuple[Tensor, ...]:
    sizes = [facts["latent_size"], *([len(facts["classes"])] if facts["classes"] else [])]
    return tuple(torch.zeros(EXAMPLE_BATCH, size) for size in sizes)


def _any_number_of(inputs: tuple[Tensor, ...]) -> tuple[dict[int, torch.export.Dim], ...]:
    return ({0: torch.export.Dim("n", min=1)},) * len(inputs)


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
