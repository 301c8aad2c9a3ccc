"""Who may import what follows from the folder."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
VOCABULARY = {"errors", "types", "parse", "atomic", "file_lock", "bundle"}
NATIVE = {"_cpu", "_cuda"}
BELOW_TORCH = VOCABULARY | NATIVE | {"ops", "runtime", "evaluate"}
# The version is a constant of the package itself, which imports nothing but the vocabulary.
PACKAGE = {""}
EVERYTHING = (
    BELOW_TORCH
    | PACKAGE
    | {"nn", "adapt", "train", "export", "benchmark", "cli", "commands"}
)

# Layer: (parts of trtseg it may import, torch allowed, ONNX's Python package allowed)
LAYERS = {
    "": (VOCABULARY | {"runtime"}, False, False),
    "errors": (VOCABULARY, False, False),
    "types": (VOCABULARY, False, False),
    "parse": (VOCABULARY, False, False),
    "atomic": (VOCABULARY, False, False),
    "file_lock": (VOCABULARY, False, False),
    "bundle": (VOCABULARY | PACKAGE, False, False),
    "ops": (VOCABULARY | NATIVE | {"ops"}, False, False),
    "runtime": (VOCABULARY | NATIVE | PACKAGE | {"ops", "runtime"}, False, False),
    "evaluate": (BELOW_TORCH | PACKAGE, False, False),
    "nn": (BELOW_TORCH | PACKAGE | {"nn"}, True, True),
    "adapt": (BELOW_TORCH | PACKAGE | {"nn", "adapt"}, True, True),
    "train": (BELOW_TORCH | PACKAGE | {"nn", "adapt", "train"}, True, True),
    "export": (BELOW_TORCH | PACKAGE | {"nn", "adapt", "train", "export"}, True, True),
    "benchmark": (BELOW_TORCH | PACKAGE | {"benchmark"}, False, True),
    "cli": (EVERYTHING, True, True),
    "__main__": ({"cli"}, False, False),
    "commands": (EVERYTHING, True, True),
}


def sources():
    for path in sorted((ROOT / "trtseg").rglob("*.py")):
        yield path, ("trtseg", *path.relative_to(ROOT / "trtseg").with_suffix("").parts)
    for path in sorted((ROOT / "export").rglob("*.py")):
        yield path, ("trtseg", "export", *path.relative_to(ROOT / "export").with_suffix("").parts)


SOURCES = list(sources())


def layer_of(module):
    """`trtseg.runtime.cache` -> "runtime"; the package's own `__init__` -> ""."""
    parts = [part for part in module if part != "__init__"]
    return parts[1] if len(parts) > 1 else ""


def imports(path, module):
    """Every (line, dotted name) that a source imports, wherever in the file."""
    package = module[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join((*package[: len(package) - node.level + 1], base)).rstrip(".")
            if base == "trtseg":
                for alias in node.names:
                    known = alias.name in LAYERS or alias.name in NATIVE
                    yield node.lineno, f"trtseg.{alias.name}" if known else "trtseg"
            else:
                yield node.lineno, base


def at_module_level(path):
    """Names imported when the module is imported, `if TYPE_CHECKING:` left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module or ""


@pytest.mark.parametrize(("path", "module"), SOURCES, ids=[".".join(m) for _, m in SOURCES])
def test_imports_follow_the_table(path, module):
    allowed, torch, onnx = LAYERS[layer_of(module)]
    if module[-1].endswith("command"):  # a subcommand that lives beside what it runs
        allowed = EVERYTHING
    wrong = []
    for line, name in imports(path, module):
        top, _, rest = name.partition(".")
        if top == "trtseg":
            wrong += [(line, name)] if rest.partition(".")[0] not in allowed | PACKAGE else []
        elif top in ("torch", "torchvision", "safetensors"):
            wrong += [] if torch else [(line, name)]
        elif top in ("onnx", "onnxscript"):
            wrong += [] if onnx else [(line, name)]
        elif top in ("tensorrt", "tensorrt_rtx"):
            wrong.append((line, name))  # the runtime looks them up by name, at use
    assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


@pytest.mark.parametrize(("path", "module"), SOURCES, ids=[".".join(m) for _, m in SOURCES])
def test_heavy_packages_load_at_use(path, module):
    layer = layer_of(module)
    heavy = {"cupy", "tensorrt", "tensorrt_rtx"}
    if layer in ("", "errors", "types", "parse", "atomic", "file_lock", "bundle", "ops", "cli"):  # a command loads when it runs
        heavy |= {"cv2", "onnxruntime"}
    if layer in ("benchmark", "cli", "commands"):
        heavy |= {"torch", "onnx", "onnxscript", "safetensors"}
        heavy |= {"trtseg.nn", "trtseg.adapt", "trtseg.train", "trtseg.export", "trtseg.evaluate"}
    found = [
        name
        for name in at_module_level(path)
        if any(name == one or name.startswith(f"{one}.") for one in heavy)
    ]
    assert not found, f"{path.relative_to(ROOT)} imports {found} when it is imported"


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
