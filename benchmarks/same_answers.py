"""Whether a change of the code leaves every mask as it was, bit for bit.

    python benchmarks/same_answers.py record DATA/eval/davis_dev DATA/eval/coco_val_dev
    python benchmarks/same_answers.py compare DATA/eval

`record` lets a simulated user click on photos and writes the clicks with a hash of each mask into
`benchmarks/results/same-answers.json`. `compare` makes the recorded clicks again, so that a changed
click simulator moves nothing, and tells which masks differ. Sums are made in another order on
another kind of processor, or by another ONNX Runtime, so both are recorded and named if they
differ.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from trtseg import Segmenter, Session
from trtseg.evaluate.clicks import make_clicker
from trtseg.evaluate.datasets import Dataset, open_dataset
from trtseg.evaluate.datasets.decode import read_image
from trtseg.machine import describe

RECORD = Path(__file__).parent / "results" / "same-answers.json"
PHOTOS, CLICKS = 20, 10
MIN_AREA = 0.005  # of the image


def digest(session: Session) -> str:
    """Of the present mask, of all candidates and of their scores."""
    prediction = session.prediction
    found = hashlib.blake2b(digest_size=6)
    for array in (prediction.mask, prediction.candidates, prediction.scores):
        found.update(np.ascontiguousarray(array))
    return found.hexdigest()


def sources() -> dict[str, str]:
    """What else decides the last bits."""
    return {"processor": describe()["processor"], "onnxruntime": onnxruntime.__version__}


def record(paths: list[str]) -> int:
    """Click, and write the file."""
    segmenter = Segmenter.load(backend="onnxruntime", threads=1)
    photos: list[dict[str, Any]] = []
    for path in paths:
        dataset = open_dataset(path, min_area=MIN_AREA)
        for sample in spread(dataset, PHOTOS // len(paths)):
            session = segmenter.session(segmenter.encode(sample.image))
            clicker = make_clicker("standard", sample.mask, seed=0, name=sample.name)
            predicted, rows = None, []
            for _ in range(CLICKS):
                click = clicker.next_click(predicted)
                if click is None:
                    raise SystemExit(f"{sample.name}: nothing left to click on")
                predicted = session.add_click(click.x, click.y, click.positive).mask > 0
                rows.append([click.x, click.y, click.positive, digest(session)])
            photo = str(sample.source.path.relative_to(Path(path).parent))
            photos.append({"photo": photo, "clicks": rows})
    lines = ",\n".join(json.dumps(photo) for photo in photos)
    RECORD.write_text(f'{{"made_with": {json.dumps(sources())},\n"photos": [\n{lines}\n]}}\n')
    return 0


def spread(dataset: Dataset, count: int) -> list[Any]:
    """One object each of photos that lie evenly over a data set."""
    firsts = list({sample.source.name: sample for sample in reversed(dataset)}.values())[::-1]
    return [firsts[i] for i in np.linspace(0, len(firsts) - 1, count).round().astype(int)]


def compare(folder: str) -> int:
    """Click as recorded, and tell what differs."""
    segmenter = Segmenter.load(backend="onnxruntime", threads=1)
    kept = json.loads(RECORD.read_text())
    same = total = 0
    for photo in kept["photos"]:
        session = segmenter.session(segmenter.encode(read_image(Path(folder) / photo["photo"])))
        for index, (x, y, positive, wanted) in enumerate(photo["clicks"]):
            session.add_click(x, y, positive)
            total += 1
            if digest(session) == wanted:
                same += 1
            else:
                print(f"{photo['photo']}: click {index + 1} gives another mask")
    print(f"{same} of {total} answers are bit-identical")
    for name, value in sources().items():
        if kept["made_with"][name] != value:
            print(f"recorded with {name} {kept['made_with'][name]}, compared with {value}")
    return int(same != total)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parts = parser.add_subparsers(required=True)
    part = parts.add_parser("record")
    part.add_argument("data", nargs="+", help="data sets that lie in one folder")
    part.set_defaults(run=lambda args: record(args.data))
    part = parts.add_parser("compare")
    part.add_argument("folder", help="that holds the data sets")
    part.set_defaults(run=lambda args: compare(args.folder))
    args = parser.parse_args()
    return args.run(args)


if __name__ == "__main__":
    raise SystemExit(main())
