"""What the CUDA compiler says of every kernel, for every architecture that wheels are built for."""

import functools
import hashlib
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "csrc" / "ops").glob("*_cuda.cu"))
ARCHITECTURES = (75, 80, 90, 100, 120)
NVCC = shutil.which("nvcc")
FLAGS = (
    "-std=c++17",
    "-O3",
    "-fmad=false",
    f"-I{ROOT / 'csrc'}",
    "-Werror=all-warnings",
    "-Xcompiler=-Wall,-Wextra,-fPIC",
    "-Xptxas=-v",
    *(f"-gencode=arch=compute_{a},code=sm_{a}" for a in ARCHITECTURES),
    f"-gencode=arch=compute_{ARCHITECTURES[-1]},code=compute_{ARCHITECTURES[-1]}",
)
KERNEL = re.compile(
    r"Compiling entry function '(?P<name>\w+)' for 'sm_(?P<arch>\d+)\w?'\n"
    r".*?\n\s*(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, "
    r"(?P<loads>\d+) bytes spill loads\n.*?Used (?P<registers>\d+) registers"
)


def report(source, folder):
    """The compiler's output, kept in `build` under a key of everything that it depends on."""
    version = subprocess.run([NVCC, "--version"], capture_output=True, check=True).stdout
    key = hashlib.sha256(version + repr(FLAGS).encode() + source.read_bytes())
    headers = [*(ROOT / "csrc").rglob("*.h"), *(ROOT / "csrc").rglob("*.cuh")]
    for header in sorted(headers):
        key.update(header.read_bytes())
    kept = ROOT / "build" / "ptxas" / f"{source.stem}-{key.hexdigest()[:16]}.txt"
    if not kept.exists():
        done = subprocess.run(
            [NVCC, *FLAGS, "-fatbin", str(source), "-o", str(folder / "kernels.fatbin")],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        kept.parent.mkdir(parents=True, exist_ok=True)
        unfinished = folder / kept.name
        unfinished.write_text(done.stdout + done.stderr)
        shutil.move(unfinished, kept)
    return kept.read_text()


def test_the_report_is_understood():
    """One kernel that spills, in the words of ptxas."""
    text = (
        "ptxas info    : Compiling entry function '_Z1fPf' for 'sm_90'\n"
        "ptxas info    : Function properties for _Z1fPf\n"
        "    520 bytes stack frame, 16 bytes spill stores, 8 bytes spill loads\n"
        "ptxas info    : Used 32 registers, used 0 barriers, 520 bytes cumulative stack size\n"
    )
    (match,) = KERNEL.finditer(text)
    assert match.groups() == ("_Z1fPf", "90", "520", "16", "8", "32")


@functools.cache
def kernels_of(op):
    """The PTX of every kernel of an op."""
    flags = ["-std=c++17", "-fmad=false", f"-I{ROOT / 'csrc'}", "-arch=compute_90", "-ptx"]
    source = ROOT / "csrc" / "ops" / f"{op}_cuda.cu"
    with tempfile.TemporaryDirectory() as folder:
        ptx = Path(folder, "out.ptx")
        subprocess.run([NVCC, *flags, "-o", str(ptx), str(source)], check=True)
        return ptx.read_text().split(".entry ")[1:]


@pytest.mark.skipif(NVCC is None, reason="nvcc not found")
@pytest.mark.parametrize(("op", "loads"), [("add_guidance", 4), ("hypercolumn", 5)])
def test_packs_are_loaded_and_stored_in_one_access(op, loads):
    """Of 16 bytes; of its own accord the compiler stores their values one by one.

    Loads are counted: a pack of every pixel of a thread, or of every corner and the equal level.
    """
    kernels = kernels_of(op)
    packed = [kernel for kernel in kernels if "st.global.v4.u32" in kernel]
    assert len(packed) == 2, "float and half"
    for kernel in packed:
        # nothing else is stored, and of maps in packs nothing else is loaded
        assert not re.search(r"st\.global\.(?!v4)", kernel)
        assert len(re.findall(r"ld\.global\.(?:nc\.)?v4\.", kernel)) >= loads


@pytest.mark.skipif(NVCC is None, reason="nvcc not found")
def test_taps_are_computed_once_a_block():
    """Where a pixel lies between a level's cells: before the barrier, in shared memory, and not
    again by each thread for its channels."""
    for kernel in kernels_of("hypercolumn"):
        shared, barrier, own = kernel.partition("bar.sync")
        assert barrier
        assert "cvt.rzi.s32.f32" in shared, "rounds down"
        assert "cvt.rzi.s32.f32" not in own
        assert "div.rn.f32" not in own
        assert "ld.shared" in own


@pytest.mark.skipif(NVCC is None, reason="nvcc not found")
def test_clicks_are_read_once_a_block():
    """The real ones are gathered in shared memory: most of a list of fixed length is empty, and
    a thread that walked the list itself would read each slot from global memory."""
    kernels = kernels_of("click_maps")
    assert len(kernels) == 2, "float and half"
    for kernel in kernels:
        gathered = kernel.index("atom.shared.add")
        walked = kernel[gathered:]
        assert len(re.findall(r"ld\.global", kernel)) == 2, "y and x of one slot"
        assert "ld.global" not in walked
        assert "ld.shared" in walked


@pytest.mark.slow
@pytest.mark.skipif(NVCC is None, reason="nvcc not found")
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_no_spills_and_no_local_memory(source, tmp_path):
    text = report(source, tmp_path)
    kernels = list(KERNEL.finditer(text))
    assert len(kernels) == text.count("Compiling entry function")
    per_architecture = [{k["name"] for k in kernels if int(k["arch"]) == a} for a in ARCHITECTURES]
    assert per_architecture[0]
    assert all(names == per_architecture[0] for names in per_architecture)
    bad = [k[0] for k in kernels if int(k["stack"]) or int(k["stores"]) or int(k["loads"])]
    assert not bad, "\n".join(bad)
