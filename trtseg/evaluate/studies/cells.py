"""What a study keeps of an evaluation: the numbers that pages and figures show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trtseg.bundle import read as read_bundle
from trtseg.errors import BundleError
from trtseg.evaluate.methods import BASELINES
from trtseg.evaluate.records import RunDirectory
from trtseg.evaluate.summary import summarise

if TYPE_CHECKING:
    from trtseg.evaluate.studies.study import Study

_BY_CLICK = ("iou", "iou_intervals", "best_iou")


def condense(run: RunDirectory, study: Study) -> dict[str, Any] | None:
    """The numbers of one cell that pages and figures show; None of a run that was only begun.

    Raises:
        DatasetError: there is no run, or a file of it is bad.
    """
    summary = summarise(run)
    if not summary["results"]:
        return None
    name, result = next(iter(summary["results"].items()))
    # an object that was left at the target has no IoU after later clicks
    count = 1 if study.stop_at_target else study.clicks
    return {
        **{key: v[:count] if key in _BY_CLICK else v for key, v in result.items()},
        "available": summary["data"][name]["available"],
        "method": summary["method"],
        "machine": summary["machine"],
    }


def check_model(model: str, cell: dict[str, Any], run: RunDirectory) -> None:
    """That a cell which is only read is of the model that has its name now.

    Raises:
        ValueError: it is of another one.
    """
    made_by = cell["method"].get("fingerprint")
    try:
        if made_by is None or model in BASELINES or read_bundle(model).fingerprint == made_by:
            return
    except BundleError:
        return  # there is none to compare with
    raise ValueError(
        f"{run.path}: of another model than {model} is now; remove it, or choose another --work"
    )


def training_budget(bundle: str) -> dict[str, Any]:
    """What the training of a bundle took, as its manifest tells: steps, batch, crop, minutes.

    Raises:
        BundleError: no such bundle.
    """
    training = read_bundle(bundle).manifest.raw.get("training", {})
    config = training.get("config", {})
    return {
        "steps": config.get("stages", [{}])[0].get("steps"),
        "batch": config.get("batch"),
        "crop_px": config.get("crop", {}).get("size"),
        "minutes": training.get("minutes"),
    }
