"""Whatever is in a checkpoint's files, reading it gives a state or a CheckpointError."""

import contextlib
import os
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import torch
from test_hostile_files import MUTATIONS, changed

from trtseg.errors import CheckpointError
from trtseg.nn.checkpoint import STATE, TENSORS, read_checkpoint, save_checkpoint

EXAMPLES = int(os.environ.get("TRTSEG_FUZZ", "100"))


@hypothesis.given(name=st.sampled_from([STATE, TENSORS]), mutations=MUTATIONS)
@hypothesis.settings(max_examples=EXAMPLES)
def test_other_bytes_are_told_or_mean_the_same(name, mutations, tmp_path_factory):
    folder: Path = tmp_path_factory.getbasetemp() / "hostile"
    if not folder.exists():
        save_checkpoint(folder, {"model.a": torch.arange(6.0)}, {"network": {}, "images": 3})
        (folder.parent / STATE).write_bytes((folder / STATE).read_bytes())
        (folder.parent / TENSORS).write_bytes((folder / TENSORS).read_bytes())
    for each in (STATE, TENSORS):
        (folder / each).write_bytes((folder.parent / each).read_bytes())
    (folder / name).write_bytes(changed((folder / name).read_bytes(), mutations))
    with contextlib.suppress(CheckpointError):
        tensors, state = read_checkpoint(folder)
        assert torch.equal(tensors["model.a"], torch.arange(6.0))
        assert state["format"] == 1
