"""CVAT's interactor as a nuclio function."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from trtseg import Segmenter, TrtsegError
from trtseg.serve.folder import Folder
from trtseg.serve.limits import Limits
from trtseg.serve.tools import cvat
from trtseg.serve.workspace import Workspace


def init_context(context: Any) -> None:
    """Load the model, once a worker."""
    segmenter = Segmenter.load(os.environ.get("TRTSEG_MODEL", "lite"))
    folder = Folder(Path(tempfile.mkdtemp(prefix="trtseg-")))
    context.user_data.workspace = Workspace(segmenter, folder, Limits())


def handler(context: Any, event: Any) -> Any:
    """Answer one event."""
    try:
        body, status = cvat.answer(context.user_data.workspace, event.body), 200
    except (TrtsegError, ValueError) as error:
        body, status = {"error": str(error)}, 400
    return context.Response(
        body=json.dumps(body), headers={}, content_type="application/json", status_code=status
    )
