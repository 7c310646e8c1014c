"""Triton's kernels on a machine without a GPU: computed by Triton's interpreter, and compiled for several GPUs."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.running import run_command

pytest.importorskip("triton")

MAPS, CHANNELS, COUNT = "*bf16", "*fp32", "i32"


@pytest.mark.parametrize("tests", ["test_batch_norm_kernels.py", "test_image_kernels.py", "test_launches.py"])
def test_the_kernels_are_right_in_tritons_interpreter(tests: str) -> None:
    """In a process of its own: Triton reads the variable while it is imported."""
    pytest_command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    result = run_command([*pytest_command, f"tests/gpu/{tests}"], env={"TRITON_INTERPRET": "1"}, timeout=280)
    assert result.returncode == 0, result.stdout[-5000:]
    assert "passed" in result.stdout and "skipped" not in result.stdout, result.stdout[-500:]


Kernels = dict[str, tuple[Any, dict[str, str], dict[str, Any]]]
"""Each kernel, the types of its arguments and its constants."""


def batch_norm_kernels() -> Kernels:
    """As for DCGAN's layers in bf16."""
    import triton.language as tl

    from dcgan_dist.gan.fast import batch_norm_kernels as module

    sizes = {"num_rows": COUNT, "num_channels": COUNT, "pixels": COUNT}
    tile = {"CHANNELS_LAST": True, "PRECISION": tl.float32, "ROWS": module.TILE_ROWS, "CHANNELS": module.TILE_CHANNELS}
    layer = {"combined": CHANNELS, "weight": CHANNELS, "bias": CHANNELS}
    fused = {"EPS": 1e-5, "SLOPE": 0.2, **tile}
    running = {"running_mean": CHANNELS, "running_variance": CHANNELS, "batches": "*i64"}
    return {
        "measure": (module._measure, {"input": MAPS, "pieces": CHANNELS, "rows_of_piece": COUNT, **sizes}, tile),
        "combine": (
            module._combine,
            {"pieces": CHANNELS, "combined": CHANNELS, **running, "num_pieces": COUNT, "num_channels": COUNT},
            {"PARTS": 2, "TRACK": True, "MOMENTUM": 0.1, "PIECES": 32, "CHANNELS": 16},
        ),
        "normalise": (module._normalise, {"input": MAPS, "output": MAPS, **layer, **sizes}, fused),
        "gradient_sums": (
            module._gradient_sums,
            {"grad": MAPS, "input": MAPS, "pieces": CHANNELS, **layer, "rows_of_piece": COUNT, **sizes},
            fused,
        ),
        "add_up": (
            module._add_up,
            {"pieces": CHANNELS, "sums": CHANNELS, "total": CHANNELS, "num_pieces": COUNT, "num_values": COUNT},
            {"PARTS": 2, "PIECES": 32, "VALUES": 32},
        ),
        "input_gradient": (
            module._input_gradient,
            {"grad": MAPS, "input": MAPS, "output": MAPS, **layer, "sums": CHANNELS, **sizes},
            fused,
        ),
    }


def image_kernels() -> Kernels:
    """As for images of 64 pixels in bf16."""
    import triton.language as tl

    from dcgan_dist.gan.fast import image_kernels as module

    tile, size = {"TILE": module.TILE}, {"SIZE": 64, "TILE": module.TILE}
    here = {"position": "*i64", "first": COUNT}
    return {
        "to_blocks": (module._to_blocks, {"images": MAPS, "blocks": MAPS}, {"SIDE": 33, **size}),
        "from_blocks": (module._from_blocks, {"blocks": MAPS, "images": MAPS}, {"SIDE": 33, **size}),
        "join": (
            module._join,
            {"pixels": "*u8", "fakes": MAPS, "both": MAPS, "num_real": COUNT, "num_both": COUNT},
            {"PRECISION": tl.float32, **tile},
        ),
        "take": (
            module._take,
            {"cache": "*u8", "orders": "*i64", **here, "images": "*u8", "samples": COUNT, "flip_key": "i64"},
            {"FLIP": True, **size},
        ),
        "draw_normal": (
            module._draw_normal,
            {"latents": CHANNELS, **here, "key": "i64", "num_pairs": COUNT},
            {"SIZE": 100, "PAIRS": 50, "TILE": 256},
        ),
    }


NAMES = {
    batch_norm_kernels: ("measure", "combine", "normalise", "gradient_sums", "add_up", "input_gradient"),
    image_kernels: ("to_blocks", "from_blocks", "join", "take", "draw_normal"),
}
OF_MAPS = ("measure", "normalise", "gradient_sums", "input_gradient")


@pytest.mark.parametrize("capability", [80, 90, 100])
@pytest.mark.parametrize(("kernels", "name"), [(kernels, name) for kernels, names in NAMES.items() for name in names])
def test_every_kernel_compiles_for_a_gpu_without_spilling_and_without_atomics(
    kernels: Callable[[], Kernels], name: str, capability: int, tmp_path: Path
) -> None:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from dcgan_dist.gan.fast.batch_norm_kernels import OPTIONS

    function, types, constants = kernels()[name]
    assert set(function.arg_names) == {*types, *constants}
    source = ASTSource(
        function,
        {argument: types.get(argument, "constexpr") for argument in function.arg_names},
        constants,
        # As Triton finds them when it is called: pointers of whole cache lines, sizes that 16 divides.
        {(place,): [["tt.divisibility", 16]] for place, given in enumerate(function.arg_names) if given in types},
    )
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=OPTIONS)
    ptx = str(compiled.asm["ptx"])
    assert not re.search(r"\b(atom|red)\.", ptx)
    if name in OF_MAPS:
        assert re.search(r"ld\.global\S*\.v4\.b32", ptx), "reads maps in fewer than 16 bytes at a time"
    cubin = tmp_path / f"{name}.cubin"
    cubin.write_bytes(compiled.asm["cubin"])
    used = resources(cubin)
    assert used["LOCAL"] == 0
    assert used["REG"] <= 168, (
        f"{used['REG']} registers a thread: fewer than three programs of four warps fit on a multiprocessor"
    )


def resources(cubin: Path) -> dict[str, int]:
    """What a thread takes: registers (REG) and bytes of memory for those that did not fit (LOCAL)."""
    import triton

    disassembler = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    command = [str(disassembler), "-res-usage", str(cubin)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {name: int(number) for name, number in re.findall(r"(REG|LOCAL):(\d+)", told)}
