"""Who may import whom: the parts depend on each other in one direction only."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.running import ROOT

# The rooms of the house from the ground up, each a folder; at the root lie the settings and the commands alone. A room
# uses those on the floors below it, and no other on its own.
FLOORS = (
    ("base",),
    ("config",),
    ("gan", "command_line"),
    ("distributed",),
    ("data",),
    ("run",),
    ("tracking",),
    ("reporting", "metrics"),
    ("training", "generating"),
    ("exporting",),
    ("train", "generate", "evaluate", "export", "report", "dashboard"),
)

# Who may import no more of the project than this.
NARROW = {
    "dcgan_dist.base": ("dcgan_dist.base",),
    "dcgan_dist.config": (),
    "dcgan_dist.gan": ("dcgan_dist.gan", "dcgan_dist.base.counter_random"),
    "dcgan_dist.distributed": ("dcgan_dist.distributed", "dcgan_dist.gan.fast", "dcgan_dist.base"),
    "dcgan_dist.generating": (
        *("dcgan_dist.base", "dcgan_dist.data", "dcgan_dist.distributed", "dcgan_dist.gan", "dcgan_dist.run"),
        *("dcgan_dist.tracking.tracker", "dcgan_dist.generating"),
    ),
    "data_prep": (
        *("dcgan_dist.base", "dcgan_dist.data.crop", "dcgan_dist.data.shard_format", "dcgan_dist.data.shard_index"),
        "dcgan_dist.data.plain_png",
        "dcgan_dist.data.pixel_file",  # data_prep.pixels lists what the trainer keeps beside the shards
        "data_prep",
    ),
    "data_prep.faces": ("dcgan_dist.base", "data_prep.faces"),
    "data_prep.sources": ("dcgan_dist.base", "data_prep.sources"),
    "data_prep.packing": (
        *("dcgan_dist.base", "dcgan_dist.data.crop", "dcgan_dist.data.shard_format", "dcgan_dist.data.shard_index"),
        "dcgan_dist.data.plain_png",
        *("data_prep.packing", "data_prep.sources"),
    ),
}

STANDARD_LIBRARY_ONLY = (
    "config",
    *(f"base.{name}" for name in ("errors", "files")),
    *(f"data.{name}" for name in ("shard_format", "shard_index", "pixel_file")),
)


def modules() -> dict[str, Path]:
    """Every module of the project by its name."""
    found = {}
    for package in ("dcgan_dist", "data_prep", "launch"):
        for path in (ROOT / package).rglob("*.py"):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            found[name] = path
    return found


def imports(path: Path, at_start_only: bool = False) -> Iterator[str]:
    """Names of the modules that a file imports: all, or only those that importing it imports."""
    tree = ast.parse(path.read_text())
    inside_functions = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) or _for_types_only(function)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if at_start_only and id(node) in inside_functions:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module


def _for_types_only(node: ast.AST) -> bool:
    """Whether this is an `if TYPE_CHECKING:`, which no run enters."""
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


MODULES = modules()
OURS = ("dcgan_dist", "data_prep", "launch")


def of_this_project(name: str) -> bool:
    return name.split(".")[0] in OURS


def is_within(name: str, parts: tuple[str, ...]) -> bool:
    return any(name == part or name.startswith(f"{part}.") for part in parts)


def room_of(module: str) -> str:
    """The room that a module of the package lies in: the folder's name, or its own at the root."""
    return module.split(".")[1]


def floor_of(room: str) -> int:
    (floor,) = [number for number, rooms in enumerate(FLOORS) if room in rooms] or [None]
    assert floor is not None, f"{room} stands on no floor; give it one here"
    return floor


def trainer_modules() -> list[str]:
    return sorted(name for name in MODULES if name.startswith("dcgan_dist.") and MODULES[name].name != "__init__.py")


@pytest.mark.parametrize("module", trainer_modules())
def test_a_room_uses_only_those_on_the_floors_below(module: str) -> None:
    for imported in imports(MODULES[module]):
        if imported in trainer_modules() and room_of(imported) != room_of(module):
            below = floor_of(room_of(imported)) < floor_of(room_of(module))
            assert below, f"{module} imports {imported}, which is not on a floor below"


def test_at_the_root_lie_the_settings_and_the_commands_alone() -> None:
    at_the_root = {path.stem for path in (ROOT / "dcgan_dist").glob("*.py")} - {"__init__"}
    assert at_the_root == {"config", *FLOORS[-1]}
    assert len(at_the_root) <= 8


@pytest.mark.parametrize("part", NARROW)
def test_a_narrow_part_imports_nothing_else_of_the_project(part: str) -> None:
    users = [name for name in MODULES if is_within(name, (part,))]
    for user in users:
        for imported in filter(of_this_project, imports(MODULES[user])):
            assert is_within(imported, NARROW[part]), f"{user} imports {imported}"


@pytest.mark.parametrize("name", STANDARD_LIBRARY_ONLY)
def test_the_lowest_parts_need_nothing_but_the_standard_library(name: str) -> None:
    if (module := f"dcgan_dist.{name}") in MODULES:
        others = [imported for imported in imports(MODULES[module]) if not of_this_project(imported)]
        assert {imported.split(".")[0] for imported in others} <= sys.stdlib_module_names


def test_the_mathematics_needs_torch_and_knows_no_ranks_files_or_logging() -> None:
    for module in (name for name in MODULES if is_within(name, ("dcgan_dist.gan",))):
        for imported in imports(MODULES[module]):
            top = imported.split(".")[0]
            allowed = ("torch", "triton") if is_within(module, ("dcgan_dist.gan.fast",)) else ("torch",)
            assert of_this_project(imported) or top in (*allowed, *sys.stdlib_module_names), (module, imported)
            assert top not in ("logging", "pathlib", "os", "io"), (module, imported)


def test_only_one_folder_knows_torch_distributed() -> None:
    for module, path in MODULES.items():
        if not is_within(module, ("dcgan_dist.distributed", "launch")):
            for imported in imports(path):
                assert not is_within(imported, ("torch.distributed", "torch.nn.parallel")), (module, imported)


def test_nothing_imports_the_command() -> None:
    for module, path in MODULES.items():
        assert "dcgan_dist.train" not in set(imports(path)), module


def test_the_trainer_imports_neither_data_preparation_nor_launcher() -> None:
    for module in trainer_modules():
        for imported in imports(MODULES[module]):
            assert not is_within(imported, ("data_prep", "launch")), (module, imported)


def folder_of(module: str) -> str:
    return ".".join(MODULES[module].parent.relative_to(ROOT).parts)


def between_modules() -> dict[str, set[str]]:
    return {module: {name for name in imports(path) if name in MODULES} for module, path in MODULES.items()}


def between_folders() -> dict[str, set[str]]:
    """Which folders import from which; the root's own modules, commands and settings, each count by themselves."""
    graph: dict[str, set[str]] = {}
    for module, needed in between_modules().items():
        name, *others = (folder_of(one) if folder_of(one) not in OURS else one for one in (module, *sorted(needed)))
        graph.setdefault(name, set()).update(other for other in others if other != name)
    return graph


@pytest.mark.parametrize("arrows", [between_modules, between_folders])
def test_nothing_needs_itself(arrows: Callable[[], dict[str, set[str]]]) -> None:
    graph = arrows()
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, " -> ".join((*above[above.index(module) :], module))
        if module not in done:
            for imported in graph.get(module, ()):
                visit(imported, (*above, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_the_command_starts_without_the_heavy_libraries() -> None:
    heavy = ("torch", "torchvision", "numpy", "wandb", "nvidia", "matplotlib", "PIL", "tensorboard")
    program = f"import sys, dcgan_dist.train; print(*[name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.split() == []


def test_what_a_rank_imports_leaves_out_what_takes_as_long_as_torch() -> None:
    slow = ("torchvision", "torch._dynamo", "triton", "matplotlib", "wandb", "nvidia.dali", "tensorboard")
    program = f"import sys, dcgan_dist.training.assemble; print(*[name for name in {slow} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.split() == []


def test_no_module_brings_in_what_a_run_may_not_need() -> None:
    optional = ("wandb", "nvidia", "matplotlib", "tensorboard", "torch.utils.tensorboard")
    for module, path in MODULES.items():
        for imported in imports(path, at_start_only=True):
            assert not is_within(imported, optional), (module, imported)
