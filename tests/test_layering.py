"""Who may import what follows from the folder."""

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
VOCABULARY = {"errors", "types", "parse", "atomic", "file_lock", "machine", "bundle"}
NATIVE = {"_cpu", "_cuda"}
# The version is a constant of the package itself, which imports nothing but the vocabulary.
PACKAGE = {""}
RUNTIME = VOCABULARY | NATIVE | PACKAGE | {"ops", "runtime", "sam"}
LEARNING = RUNTIME | {"nn", "adapt"}
EVERYTHING = LEARNING | {
    "train", "evaluate", "serve", "export", "benchmark", "commands", "cli"
}  # fmt: skip

# Layer: (parts of trtseg it may import, torch allowed, ONNX's Python package allowed)
LAYERS = {
    "": (VOCABULARY | {"runtime", "sam"}, False, False),
    **dict.fromkeys(VOCABULARY, (VOCABULARY | PACKAGE, False, False)),
    "ops": (VOCABULARY | NATIVE | {"ops"}, False, False),
    "runtime": (RUNTIME - {"sam"}, False, False),
    # torch at use alone: whoever asks Segment Anything's interface for tensors has it
    "sam": (RUNTIME, True, False),
    "nn": (RUNTIME | {"nn"}, True, True),
    "adapt": (LEARNING, True, True),
    "train": (LEARNING | {"train", "evaluate"}, True, True),
    "evaluate": (RUNTIME | {"evaluate"}, False, False),
    "serve": (RUNTIME | {"serve", "evaluate"}, False, False),
    "export": (EVERYTHING - {"serve", "commands", "cli"}, True, True),
    # the peer is timed on torch, by an interpreter of its own
    "benchmark": (RUNTIME | {"benchmark"}, True, True),
    "commands": (EVERYTHING, True, True),
    "cli": (EVERYTHING, True, True),
    "__main__": ({"cli"}, False, False),
}


def sources():
    for path in sorted((ROOT / "trtseg").rglob("*.py")):
        yield path, ("trtseg", *path.relative_to(ROOT / "trtseg").with_suffix("").parts)
    for path in sorted((ROOT / "export").rglob("*.py")):
        yield path, ("trtseg", "export", *path.relative_to(ROOT / "export").with_suffix("").parts)


SOURCES = list(sources())
MODULES = {".".join(m).removesuffix(".__init__"): path for path, m in SOURCES}
each_source = pytest.mark.parametrize(
    ("path", "module"), SOURCES, ids=[".".join(m) for _, m in SOURCES]
)


def layer_of(module):
    """`trtseg.runtime.image` -> "runtime"; the package's own `__init__` -> ""."""
    parts = [part for part in module if part != "__init__"]
    return parts[1] if len(parts) > 1 else ""


def imports_by_name(path):
    """(line, dotted name) of every text that looks like one of our modules, where
    `importlib` or `__import__` is used."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    if names & {"importlib", "import_module", "__import__"}:
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found = re.match(r"trtseg(\.\w+)+", node.value)
                if found:
                    yield node.lineno, found[0]


def imports(path, module):
    """(line, dotted name) of every import statement, wherever in the file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = module[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join((*package[: len(package) - node.level + 1], base)).rstrip(".")
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield node.lineno, inner if inner in MODULES or base == "trtseg" else base


def at_module_level(path):
    """Names imported when the module is imported, `if TYPE_CHECKING:` left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module or ""


@each_source
def test_imports_follow_the_table(path, module):
    relative = path.relative_to(ROOT).as_posix()
    allowed, torch, onnx = LAYERS[layer_of(module)]
    wrong = []
    for line, name in [*imports(path, module), *imports_by_name(path)]:
        top, _, rest = name.partition(".")
        if top == "trtseg":
            part = rest.partition(".")[0]
            part = part if part in LAYERS or part in NATIVE else ""
            wrong += [] if part in allowed | PACKAGE else [(line, name)]
        elif top in ("torch", "torchvision", "safetensors"):
            wrong += [] if torch else [(line, name)]
        elif top in ("onnx", "onnxscript"):
            wrong += [] if onnx else [(line, name)]
        elif top in ("tensorrt", "tensorrt_rtx"):
            wrong.append((line, name))  # the runtime looks them up by name, at use
    assert not wrong, f"{relative} imports {wrong}"


def test_there_are_no_import_circles():
    # By name only the command line reaches its commands, one of which lists them all.
    graph = {}
    for path, module in SOURCES:
        own = ".".join(module).removesuffix(".__init__")
        tree = ast.parse(path.read_text(encoding="utf-8"))
        guarded = {
            line
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            for line in range(node.lineno, (node.end_lineno or 0) + 1)
        }
        graph[own] = {
            name
            for line, name in imports(path, module)
            if name in MODULES and name not in ("trtseg", own) and line not in guarded
        }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@each_source
def test_heavy_packages_load_at_use(path, module):
    layer = layer_of(module)
    heavy = {"cupy", "tensorrt", "tensorrt_rtx"}
    if layer in VOCABULARY | {"", "ops", "cli"}:  # a command loads when it runs
        heavy |= {"cv2", "onnxruntime"}
    if layer == "sam":
        heavy |= {"torch"}
    if layer in ("benchmark", "cli", "commands"):
        heavy |= {"torch", "onnx", "onnxscript", "safetensors"}
        heavy |= {"trtseg.nn", "trtseg.adapt", "trtseg.train", "trtseg.export", "trtseg.evaluate"}
        heavy |= {"trtseg.serve", "starlette", "uvicorn"}
    found = [
        name
        for name in at_module_level(path)
        if any(name == one or name.startswith(f"{one}.") for one in heavy)
    ]
    assert not found, f"{path.relative_to(ROOT)} imports {found} when it is imported"


def test_rooms_are_small_and_names_are_told_apart():
    rooms = {}
    for path, _ in SOURCES:
        if path.name not in ("__init__.py", "__main__.py"):
            rooms.setdefault(path.parent, set()).add(path.stem)
    runtime = {room: names for room, names in rooms.items() if "runtime" in room.parts}
    assert max(map(len, runtime.values())) <= 12, {str(r): len(n) for r, n in runtime.items()}
    for room, names in runtime.items():
        for other, others in runtime.items():
            assert room == other or not names & others, (room, other, names & others)


def test_csrc_includes_follow_the_folders():
    may = {"core": {"core"}, "ops": {"core", "ops"}, "bindings": {"core", "ops", "bindings"}}
    for path in sorted((ROOT / "csrc").rglob("*")):
        if path.suffix not in (".h", ".cpp", ".cu", ".cuh"):
            continue
        folder = path.relative_to(ROOT / "csrc").parts[0]
        for line in path.read_text(encoding="utf-8").splitlines():
            if not line.startswith("#include"):
                continue
            name = line.split()[1]
            if name.startswith('"'):
                assert name.strip('"').split("/")[0] in may[folder], f"{path}: {line}"
            if "pybind11" in name:
                assert folder == "bindings", f"{path}: {line}"
            assert "torch" not in name, f"{path}: {line}"
