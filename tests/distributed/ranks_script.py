"""What torchrun starts for test_ranks.py: every check below, on each of several real ranks over gloo.

    torchrun --nproc_per_node N -m tests.distributed.ranks_script FOLDER

With TRITON_INTERPRET=1 it goes through those that a GPU's kernels take part in. It
writes `FOLDER/<rank>.json`: by name of the check, what failed on this rank, or null. A check first does everything that
the ranks do together and asserts afterwards, so that a failure on one rank keeps no other waiting.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from dcgan_dist.distributed.world import World
from tests.distributed.ranks.agreement import (
    a_mistake_on_all_ranks_is_told_without_naming_one,
    a_mistake_on_one_rank_ends_all_with_the_same_line,
    a_rank_with_other_weights_is_named,
    a_request_to_stop_heard_by_one_rank_is_obeyed_by_all_at_one_step,
    a_stop_file_and_a_time_limit_stop_all_ranks,
    an_interruption_of_one_rank_is_one_of_all,
    fid_and_kid_are_those_of_one_rank,
    figures_are_means_over_the_images_of_all_ranks,
    ranks_with_the_same_latents_are_named,
    the_averages_statistics_are_measured_alike_on_any_ranks,
    together_without_a_mistake_goes_on,
)
from tests.distributed.ranks.batch_norm import (
    sync_batch_norm_evaluates_like_batch_norm,
    sync_batch_norm_exchanges_everything_through_one_place,
    sync_batch_norm_is_batch_norm_in_single_precision,
    sync_batch_norm_is_batch_norm_over_even_shares,
    sync_batch_norm_is_batch_norm_over_uneven_shares,
    sync_batch_norm_is_batch_norm_with_channels_last,
    sync_batch_norm_keeps_precision_far_from_zero,
    sync_batch_norm_takes_half_precision_inputs,
)
from tests.distributed.ranks.data import (
    a_damaged_image_among_those_that_rank_0_shows_ends_all,
    a_stop_while_the_pixels_are_written_stops_all_and_leaves_nothing,
    an_image_damaged_on_one_rank_ends_all,
    damage_that_one_rank_finds_is_repaired_for_all,
    every_rank_caches_every_image,
    leaving_the_group_ends_its_threads,
    ranks_draw_the_grid_of_one_rank,
    ranks_of_a_node_share_one_file_of_pixels,
)
from tests.distributed.ranks.weights import (
    a_penalty_and_spectral_norm_train_as_on_one_rank,
    a_step_takes_as_many_collectives_as_the_readme_says,
    augmentation_and_a_warm_up_of_the_average_are_those_of_one_rank,
    every_engine_ends_with_the_same_weights,
    every_engine_reuses_fakes_alike,
    every_engine_takes_the_same_step_in_single_precision,
    every_loss_trains_as_on_one_rank,
    every_rank_ends_with_the_same_bits,
    gradients_are_averaged_over_ranks,
    local_batch_norm_is_levelled_by_rank_0s_statistics,
    networks_keep_their_parameters_when_synchronised,
    networks_told_of_classes_train_as_on_one_rank,
    parts_one_after_the_other_train_as_ranks_beside_each_other,
    steps_on_kernels_are_those_of_one_rank,
    steps_over_even_shares_are_those_of_one_rank,
    steps_over_uneven_shares_are_those_of_one_rank,
)

CHECKS: tuple[Callable[[World], None], ...] = (
    sync_batch_norm_is_batch_norm_over_even_shares,
    sync_batch_norm_is_batch_norm_over_uneven_shares,
    sync_batch_norm_is_batch_norm_with_channels_last,
    sync_batch_norm_is_batch_norm_in_single_precision,
    sync_batch_norm_takes_half_precision_inputs,
    sync_batch_norm_keeps_precision_far_from_zero,
    sync_batch_norm_evaluates_like_batch_norm,
    sync_batch_norm_exchanges_everything_through_one_place,
    steps_over_even_shares_are_those_of_one_rank,
    steps_over_uneven_shares_are_those_of_one_rank,
    every_engine_ends_with_the_same_weights,
    every_engine_reuses_fakes_alike,
    every_engine_takes_the_same_step_in_single_precision,
    a_penalty_and_spectral_norm_train_as_on_one_rank,
    augmentation_and_a_warm_up_of_the_average_are_those_of_one_rank,
    a_step_takes_as_many_collectives_as_the_readme_says,
    gradients_are_averaged_over_ranks,
    every_loss_trains_as_on_one_rank,
    every_rank_ends_with_the_same_bits,
    local_batch_norm_is_levelled_by_rank_0s_statistics,
    networks_keep_their_parameters_when_synchronised,
    networks_told_of_classes_train_as_on_one_rank,
    parts_one_after_the_other_train_as_ranks_beside_each_other,
    a_mistake_on_one_rank_ends_all_with_the_same_line,
    a_mistake_on_all_ranks_is_told_without_naming_one,
    an_interruption_of_one_rank_is_one_of_all,
    together_without_a_mistake_goes_on,
    a_request_to_stop_heard_by_one_rank_is_obeyed_by_all_at_one_step,
    a_stop_file_and_a_time_limit_stop_all_ranks,
    figures_are_means_over_the_images_of_all_ranks,
    the_averages_statistics_are_measured_alike_on_any_ranks,
    fid_and_kid_are_those_of_one_rank,
    a_rank_with_other_weights_is_named,
    ranks_with_the_same_latents_are_named,
    every_rank_caches_every_image,
    a_damaged_image_among_those_that_rank_0_shows_ends_all,
    an_image_damaged_on_one_rank_ends_all,
    ranks_of_a_node_share_one_file_of_pixels,
    damage_that_one_rank_finds_is_repaired_for_all,
    a_stop_while_the_pixels_are_written_stops_all_and_leaves_nothing,
    ranks_draw_the_grid_of_one_rank,
    leaving_the_group_ends_its_threads,  # the last
)

ON_KERNELS = (
    *(check for check in CHECKS if check.__name__.startswith("sync_batch_norm")),
    steps_on_kernels_are_those_of_one_rank,
)
"""Checks that Triton's interpreter goes through in seconds."""


def main(folder: Path) -> None:
    world = World.connect()
    outcome: dict[str, str | None] = {}
    for check in ON_KERNELS if os.environ.get("TRITON_INTERPRET") == "1" else CHECKS:
        try:
            check(world)
            outcome[check.__name__] = None
        except Exception:
            outcome[check.__name__] = traceback.format_exc()
    (folder / f"{world.rank}.json").write_text(json.dumps(outcome))
    world.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
