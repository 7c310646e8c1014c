"""Whether this project's kernels, which are written in Triton, can run on a device."""

from __future__ import annotations

import functools
import logging
import os

import torch

from dcgan_dist.base.errors import in_one_line

log = logging.getLogger(__name__)


def kernels_run_on(device: torch.device) -> bool:
    """True on a GPU, and on a CPU in Triton's interpreter (TRITON_INTERPRET=1), if Triton works there."""
    return (device.type == "cuda" or os.environ.get("TRITON_INTERPRET") == "1") and _compiles(device)


@functools.cache
def _compiles(device: torch.device) -> bool:
    """Tries one kernel: that takes Triton and a C compiler."""
    try:
        from dcgan_dist.gan.fast import batch_norm_kernels

        one = torch.ones(16, device=device)
        batch_norm_kernels.measure(torch.ones(2, 16, 1, 1, device=device), 1, one)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # of Triton, of the compilers that it calls, of their absence: there are many kinds
        log.warning(
            "training runs in torch's ordinary operators, which is slow: Triton compiles nothing here (%s); "
            "install triton and a C compiler such as gcc",
            in_one_line(error, 200),
        )
        return False
    return True
