"""Importing the package is quick and loads nothing heavy."""

import shutil
import subprocess
import sys
from pathlib import Path

HEAVY = ["torch", "onnx", "onnxruntime", "tensorrt", "tensorrt_rtx", "cupy", "cv2", "scipy"]


def run(code):
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    return done.stdout.split()


def test_import_loads_nothing_heavy():
    assert run(f"import sys, trtseg; print(*({HEAVY!r} & sys.modules.keys()))".replace(
        repr(HEAVY), repr(set(HEAVY))
    )) == []  # fmt: skip


def test_ops_and_runtime_never_load_torch():
    code = (
        "import sys, trtseg, trtseg.ops, trtseg._cpu; "
        "print(*({'torch', 'onnx', 'onnxruntime', 'cv2', 'cupy'} & sys.modules.keys()))"
    )
    assert run(code) == []


def test_import_is_quick():
    # The best of three: a busy machine must not fail this.
    code = "import time; t = time.perf_counter(); import trtseg; print(time.perf_counter() - t)"
    assert min(float(run(code)[0]) for _ in range(3)) < 0.2


def test_unknown_names_are_refused():
    assert run(
        "import trtseg\n"
        "try: trtseg.Sgementer\n"
        "except AttributeError as error: print('Sgementer' in str(error))"
    ) == ["True"]


def test_types_are_shipped_and_every_name_is_there():
    import trtseg

    assert (Path(trtseg.__file__).parent / "py.typed").is_file()
    for name in trtseg.__all__:
        assert getattr(trtseg, name).__module__.startswith("trtseg.")


def test_a_source_tree_that_was_not_built_says_so(tmp_path):
    (tmp_path / "trtseg").mkdir()
    for name in ("__init__.py", "errors.py", "types.py"):
        source = Path(__file__).parents[1] / "trtseg" / name
        shutil.copy(source, tmp_path / "trtseg" / name)
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c",
         f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import trtseg"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: trtseg: ")
    assert "is a source tree without its native module; run elsewhere" in last
