"""The check of a GPU, rehearsed on a CPU: the same code, shortened."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.gpu_check import SECONDS, Options, _stage
from benchmarks.gpu_stages.learns import LARGEST_GRADIENT, _problems
from benchmarks.gpu_stages.steps import kind_of
from tests.running import processes_naming, run_command, user_errors

COMMAND = [sys.executable, "-m", "benchmarks.gpu_check"]


def test_a_rehearsal_goes_through_every_stage_and_fills_one_screen(shards: Path, tmp_path: Path) -> None:
    result = run_command([*COMMAND, "--device", "cpu", "--shards", str(shards), "--out", str(tmp_path)], timeout=290)
    assert result.returncode == 0, result
    found = json.loads((tmp_path / "gpu_check.json").read_text())
    assert {name: stage["verdict"] for name, stage in found["stages"].items()} == dict.fromkeys(SECONDS, "ok")
    assert found["passed"]
    *table, where = result.stdout.splitlines()
    assert str(tmp_path) in where
    assert len(table) <= 45
    assert max(map(len, table)) <= 120
    assert all(name.replace("_", " ") in result.stdout for name in SECONDS)
    learned = found["stages"]["learns"]
    assert learned["gpu"]["last"] == learned["cpu"]["last"]  # one device, one result
    assert found["stages"]["collectives"]["8"]["collectives"] == 26  # as the README says
    with Image.open(tmp_path / "grid-gpu.png") as grid:
        assert grid.size[0] > 200
    assert all((tmp_path / f"{name}.log").exists() for name in SECONDS)


def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    result = run_command([*COMMAND, "--out", str(tmp_path)])
    assert result.returncode == 2
    (line,) = user_errors(result)
    assert "no GPU is found here" in line and "--device cpu" in line


def test_a_stage_that_takes_too_long_is_ended_and_one_that_fails_says_why(shards: Path, tmp_path: Path) -> None:
    slow = _stage("learns", Options(tmp_path, shards, "cpu", 8), limit=5.0, dali=True)
    assert slow["verdict"] == "timed out"
    assert slow["seconds"] < 20
    assert processes_naming(tmp_path) == []
    failing = _stage("whole_run", Options(tmp_path, tmp_path / "no-shards", "cpu", 8), limit=60, dali=True)
    assert failing["verdict"] == "failed"
    assert "ended with 2" in failing["why"]
    assert _stage("decoding", Options(tmp_path, shards, "cpu", 8), limit=60, dali=False)["verdict"] == "left out"


def healthy() -> dict[str, object]:
    figures = {"loss/discriminator": 0.4, "loss/generator": 4.0, "gradient/generator": 5.0}
    return {
        "status": "done", "warnings": [], "first": figures, "last": figures, "largest gradient": 60.0,
        "diversity": 0.5, "swd": 60.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"largest gradient": 14_000_000.0}, "gradient reached 1.4e+07"),
        ({"largest gradient": float("nan")}, "gradient reached nan"),
        ({"diversity": 0.001}, "hardly differ"),
        ({"diversity": 0.2}, "as varied as real images"),
        ({"swd": 120.0}, "swd is 120.0"),
        ({"warnings": ["guessing"]}, "signs of collapse: guessing"),
        ({"status": "failed"}, "ended as failed"),
        ({"first": {"loss/discriminator": 1.6, "loss/generator": 4.0}}, "begins with 1.600"),
        ({"last": {"loss/discriminator": 0.4, "loss/generator": 0.8}}, "ends with 0.800"),
    ],
)
def test_a_gpu_that_learns_otherwise_than_a_cpu_is_found_out(changes: dict[str, object], problem: str) -> None:
    assert LARGEST_GRADIENT == 1000
    assert _problems({"gpu": healthy(), "cpu": healthy()}) == []
    (line,) = _problems({"gpu": healthy() | changes, "cpu": healthy()})[:1]
    assert problem in line


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("_gradient_sums", "batch norm"),
        ("sm90_xmma_dgrad_implicit_gemm_indexed_bf16bf16_bf16f32_f32_nhwckrsc_nhwc", "convolution"),
        (
            "void cutlass__5x_cudnn::Kernel<cutlass_tensorop_bf16_s16816fprop_optimized_bf16_128x128_32x5>",
            "convolution",
        ),
        ("void nhwcAddPaddingKernel<__nv_bfloat16>(int)", "padding, layout"),
        ("Memcpy DtoD (Device -> Device)", "copies"),
        ("void at::native::vectorized_elementwise_kernel<8, at::native::leaky_relu_backward_kernel>", "activations"),
        ("void at::native::multi_tensor_apply_kernel<FusedAdamMathFunctor>", "Adam, average"),
        ("void at::native::something_else", "tiny"),
    ],
)
def test_kernels_are_told_apart_by_their_names(name: str, kind: str) -> None:
    assert kind_of(name, us=1.0) == kind
