"""Classes of images: read from annotations, put behind latents, asked for by name."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest
import torch

from dcgan_dist.base.errors import UserError
from dcgan_dist.base.grid import columns_of
from dcgan_dist.config import ModelConfig, TrainConfig, TrainSection
from dcgan_dist.data.classes import ANY, Classes, classes_of_shards
from dcgan_dist.data.loader import BatchPlan
from dcgan_dist.data.mapped_shards import MappedShards
from dcgan_dist.data.sample_order import share
from dcgan_dist.data.shard_format import Manifest, Shard, index_name
from dcgan_dist.data.shard_index import attributes_of, index_lines
from dcgan_dist.distributed.world import World
from dcgan_dist.training.samples import FixedLatentSampler
from tests.given import given_inputs

CPU = torch.device("cpu")
ALONE = World(0, 1, 0, 1, CPU)
ATTRIBUTES = Classes(("Smiling", "Male"), False, torch.tensor([[0, 0], [1, 0], [1, 1]], dtype=torch.uint8))
KINDS = Classes(("cats", "dogs", "owls"), True, torch.eye(3, dtype=torch.uint8))


def annotated(folder: Path, annotations: list[object]) -> Manifest:
    """A shard of empty images with these annotations."""
    folder.mkdir()
    tar = folder / "x-all-000000.tar"
    with tarfile.open(tar, "w") as archive:
        for number, annotation in enumerate(annotations):
            for name, content in ((f"{number}.jpg", b"-"), (f"{number}.json", json.dumps(annotation).encode())):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    (folder / index_name(tar.name)).write_text(index_lines(tar))
    shard = Shard(tar.name, len(annotations), tar.stat().st_size, "0" * 64, "0" * 64)
    return Manifest("x", "all", 0, len(annotations), (1, 1), (1, 1), (), (shard,))


def read(folder: Path, annotations: list[object], setting: str) -> Classes:
    classes = classes_of_shards(MappedShards(folder, annotated(folder, annotations)), setting, ALONE)
    assert classes
    return classes


def test_no_is_0_or_minus_1_as_in_celeba() -> None:
    said = {"Male": True, "Young": 1, "Smiling": False, "Bald": 0, "Pale": -1}
    assert attributes_of({"attributes": said}) == {
        "Male": True, "Young": True, "Smiling": False, "Bald": False, "Pale": False,
    }  # fmt: skip
    assert attributes_of({}) == attributes_of([1]) == attributes_of({"attributes": None}) == {}


def test_attributes_are_read_in_the_order_they_are_named(tmp_path: Path) -> None:
    annotations = [{"attributes": {"Male": True, "Smiling": False}}, {"attributes": {"Male": -1, "Smiling": 1}}]
    classes = read(tmp_path / "shards", annotations, "Smiling, Male")
    assert (classes.names, classes.exclusive) == (("Smiling", "Male"), False)
    assert classes.rows.tolist() == [[0, 1], [1, 0]]


def test_stored_classes_are_sorted_by_name_and_an_image_may_be_of_none(tmp_path: Path) -> None:
    classes = read(tmp_path / "shards", [{"class": "owls"}, {}, {"class": "cats"}, {"class": "owls"}], "class")
    assert (classes.names, classes.exclusive) == (("cats", "owls"), True)
    assert classes.rows.tolist() == [[0, 1], [0, 0], [1, 0], [0, 1]]


@pytest.mark.parametrize(
    ("annotations", "setting", "message"),
    [
        (
            [{"attributes": {"Male": True, "Young": True}}],
            "Mail",
            "no attribute 'Mail'; did you mean Male[?] there are",
        ),
        ([{"attributes": {"Male": True, "Young": True}}], "Smiling", "there are Male, Young"),
        ([{}], "Smiling", "images without attributes"),
        ([{"class": "cats"}], "class", "images of 1 classes"),
        ([{"attributes": {"Male": True}}], "class", "images of 0 classes"),
    ],
)
def test_a_class_that_the_images_do_not_have_is_refused(
    tmp_path: Path, annotations: list[object], setting: str, message: str
) -> None:
    with pytest.raises(UserError, match=message) as raised:
        read(tmp_path / "shards", annotations, setting)
    assert str(raised.value).startswith(f"model.classes = {setting}: {tmp_path / 'shards'}")


def test_without_classes_no_annotation_is_read(tmp_path: Path) -> None:
    assert (
        classes_of_shards(MappedShards(tmp_path / "shards", annotated(tmp_path / "shards", [{}])), "none", ALONE)
        is None
    )


def test_what_is_asked_for_is_set_and_the_rest_is_as_in_the_images() -> None:
    wanted = ATTRIBUTES.wanted("Male=1")
    assert wanted.tolist() == [ANY, 1]
    assert ATTRIBUTES.only(wanted).rows.tolist() == [[0, 1], [1, 1], [1, 1]]
    assert ATTRIBUTES.showing(wanted) == [2]
    assert ATTRIBUTES.wanted("Male=0, Smiling").tolist() == [1, 0]
    assert KINDS.wanted("dogs").tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("classes", "text", "message"),
    [
        (ATTRIBUTES, "Smilin=1", "--class Smilin=1: there is no class 'Smilin'; did you mean Smiling"),
        (ATTRIBUTES, "Smiling=2", "can be 1 or 0"),
        (ATTRIBUTES, "", "there is no class ''; there are Smiling, Male"),
        (KINDS, "cats,dogs", "there is no class 'cats,dogs'"),
    ],
)
def test_a_wrong_class_is_told_with_those_there_are(classes: Classes, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        classes.wanted(text)


def test_a_checkpoint_gives_back_what_it_was_given() -> None:
    again = Classes.from_dict(KINDS.as_dict())
    assert (again.names, again.exclusive) == (KINDS.names, True)
    assert torch.equal(again.rows, KINDS.rows)
    with pytest.raises(ValueError, match="fit"):
        Classes.from_dict(KINDS.as_dict() | {"names": ["cats"]})


def test_conditions_stand_behind_latents_in_turn() -> None:
    latents = torch.zeros(4, 1, dtype=torch.float64)
    assert ATTRIBUTES.beside(latents, 2).tolist() == [[0, 1, 1], [0, 0, 0], [0, 1, 0], [0, 1, 1]]


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_a_steps_latents_carry_what_its_images_show_on_any_number_of_ranks(ranks: int) -> None:
    rows = torch.arange(24, dtype=torch.uint8).view(12, 2)
    config = TrainConfig(model=ModelConfig(latent_size=5), train=TrainSection(reuse_fakes=False))
    found = []
    for rank, size in ((0, 1), *((rank, ranks) for rank in range(ranks))):
        plan = BatchPlan(0, 12, 8, *share(8, rank, size), flip=False)
        images, inputs = given_inputs(config, plan, World(rank, size, 0, 1, CPU), torch.float64, 8, shown=rows)
        images.set(torch.zeros(plan.count, 3, 32, 32, dtype=torch.uint8))
        assert inputs.prepare(8, 1) == 1
        batch, _ = inputs.take()
        assert torch.equal(batch.first_latents[:, 5:], rows[plan.ids(8)].double())  # reaches into the second epoch
        found.append((batch.first_latents, batch.second_latents))
    whole, *parts = found
    for expected, each in zip(whole, zip(*parts, strict=True), strict=True):
        assert torch.equal(torch.cat(each), expected)


@pytest.mark.parametrize("classes", [ATTRIBUTES, KINDS])
def test_the_rows_of_a_grid_show_one_class_after_the_other_on_the_same_latents(classes: Classes) -> None:
    count, columns = 14, columns_of(14)
    parts = [FixedLatentSampler(0, count, 5, 32, World(rank, 2, 0, 1, CPU), classes).latents for rank in range(2)]
    latents = torch.cat(parts)
    names, shown = classes.on_a_grid()
    assert names == (["cats", "dogs", "owls"] if classes.exclusive else ["none", "Smiling", "Male"])
    rows = latents.split(columns)
    for number, row in enumerate(rows):
        assert torch.equal(row[:, 5:], shown[number % 3].expand(len(row), -1).double())
        assert torch.equal(row[:, :5], rows[number // 3 * 3][: len(row), :5])
    plain = FixedLatentSampler(0, count, 5, 32, ALONE).latents
    assert torch.equal(rows[0][:, :5], plain[:columns])
    assert not torch.equal(rows[3][:, :5], rows[0][: len(rows[3]), :5])
