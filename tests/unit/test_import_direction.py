"""Who may import whom: the parts depend on each other in one direction only."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.running import ROOT

# From the bottom up; a part may import from its own layer and those below. A name stands for all that is in it unless
# a longer one is listed too.
LAYERS = (
    (
        *("errors", "files", "json_lines", "config", "config_problems", "counter_random", "launcher", "arguments"),
        "waiting",
        "checkpoint_names",
        *("events", "stability", "stage_clock", "data.shard_format", "data.shard_index"),
    ),
    ("gan",),
    ("distributed", "data.sample_order", "data.crop", "command_line", "yaml_settings"),
    ("state", "data", "checkpoint", "sampling", "tracking", "stop", "run_folder", "resume", "host", "calibration"),
    ("environment", "reporting"),
    ("trained", "metrics", "engine", "generating.chunks", "run_watch"),
    ("quality",),
    ("recorder", "loop"),
    ("prepare", "rollback"),
    ("assemble", "generating", "evaluating", "exporting"),
    ("train", "generate", "evaluate", "export", "report", "dashboard"),
)

# Parts that may import no more of the package than this.
NARROW = {
    "dcgan_dist.errors": (),
    "dcgan_dist.files": (),
    "dcgan_dist.config": (),
    "dcgan_dist.counter_random": (),
    "dcgan_dist.data.shard_format": ("dcgan_dist.errors", "dcgan_dist.files", "dcgan_dist.data.shard_index"),
    "dcgan_dist.data.shard_index": ("dcgan_dist.errors", "dcgan_dist.files", "dcgan_dist.data.shard_format"),
    "dcgan_dist.gan": ("dcgan_dist.gan", "dcgan_dist.counter_random"),
    "dcgan_dist.distributed": (
        *("dcgan_dist.distributed", "dcgan_dist.gan.fast"),
        *("dcgan_dist.errors", "dcgan_dist.launcher", "dcgan_dist.waiting"),
    ),
    "data_prep": (
        *("dcgan_dist.data.shard_format", "dcgan_dist.data.shard_index"),
        *("dcgan_dist.errors", "dcgan_dist.files", "data_prep"),
    ),
}

STANDARD_LIBRARY_ONLY = (
    "stage_clock",
    "waiting",
    "launcher",
    "errors",
    "files",
    "json_lines",
    "config",
    "data.image_header",
    "data.shard_format",
    "data.shard_index",
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


def layer_of(module: str) -> int:
    """The layer whose name fits best."""
    inside = module.removeprefix("dcgan_dist.")
    fits = [(len(part), number) for number, parts in enumerate(LAYERS) for part in parts if is_within(inside, (part,))]
    assert fits, f"{module} stands in no layer; give it one here"
    return max(fits)[1]


def trainer_modules() -> list[str]:
    return sorted(name for name in MODULES if name.startswith("dcgan_dist.") and MODULES[name].name != "__init__.py")


@pytest.mark.parametrize("module", trainer_modules())
def test_a_part_imports_only_its_own_layer_and_those_below(module: str) -> None:
    for imported in imports(MODULES[module]):
        if imported.startswith("dcgan_dist.") and imported in trainer_modules():
            assert layer_of(imported) <= layer_of(module), f"{module} imports {imported} from above"


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


def test_no_module_needs_itself() -> None:
    graph = {module: {name for name in imports(path) if name in MODULES} for module, path in MODULES.items()}
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, " -> ".join((*above[above.index(module) :], module))
        if module not in done:
            for imported in graph[module]:
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
    program = f"import sys, dcgan_dist.assemble; print(*[name for name in {slow} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.split() == []


def test_no_module_brings_in_what_a_run_may_not_need() -> None:
    optional = ("wandb", "nvidia", "matplotlib", "tensorboard", "torch.utils.tensorboard")
    for module, path in MODULES.items():
        for imported in imports(path, at_start_only=True):
            assert not is_within(imported, optional), (module, imported)
