"""The `trtseg` command. A subcommand's module is imported only when it is called."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
from collections.abc import Sequence

from trtseg import __version__
from trtseg.commands.options.arguments import Parser
from trtseg.commands.options.extras import EXTRAS
from trtseg.errors import EngineError, TrtsegError

# name: (module with add_arguments(parser) and run(args) -> exit status, one line of help)
COMMANDS = {
    "segment": ("trtseg.commands.segment", "cut an object out of a photo by clicks"),
    "edit": ("trtseg.commands.edit", "cut objects out of photos in the browser"),
    "serve": ("trtseg.commands.serve", "serve the page, the API and annotation tools"),
    "study-users": (
        "trtseg.commands.study_users", "let people compare methods, blind, in the browser"
    ),
    "demo": ("trtseg.commands.demo", "try the shipped model on a shipped photo"),
    "info": ("trtseg.commands.info", "what this installation and machine can do"),
    "completion": ("trtseg.commands.completion", "let bash, zsh or fish complete command lines"),
    "build-engine": ("trtseg.commands.build_engine", "build a model's TensorRT engines"),
    "engines": ("trtseg.commands.engines", "list, verify or prune the engines that were built"),
    "bench": ("trtseg.commands.bench", "measure the latency of a model on this machine"),
    "evaluate": ("trtseg.commands.evaluate", "count the clicks a model needs on a data set"),
    "study": ("trtseg.commands.study", "run, list and render the studies: tables of the papers"),
    "train": ("trtseg.commands.train", "train a model (needs torch)"),
    "pack": ("trtseg.commands.pack", "make one file of a training's images (needs torch)"),
    "export": ("trtseg.commands.export", "make a bundle of a trained model (needs torch)"),
    "export-triton": (
        "trtseg.commands.export_triton",
        "write a model's networks as a repository of the Triton server",
    ),
    "export-sam": (
        "trtseg.commands.export_sam",
        "write a model as Segment Anything's two ONNX graphs (needs torch)",
    ),
    "train-corrections": (
        "trtseg.commands.train_corrections",
        "train continuous adaptation's initial model (needs torch)",
    ),
    "importance": (
        "trtseg.commands.importance",
        "compute which weights adaptation should hold on to (needs torch)",
    ),
}
EXAMPLES = """\
examples:
  trtseg demo
  trtseg segment photo.jpg --click 210,160 --background 40,30 -o mask.png --overlay overlay.png
  trtseg info
`trtseg COMMAND --help` tells more about each."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit status: 0, 1 (it failed) or 2 (bad input)."""
    _fill_closed_streams()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    parser = Parser(
        prog="trtseg",
        description="Interactive image segmentation: clicks become masks within milliseconds.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"trtseg {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    if not arguments:
        arguments = ["--help"]
    wanted = next((word for word in arguments if not word.startswith("-")), None)
    run = None
    try:
        for name, (module_name, summary) in COMMANDS.items():
            own = commands.add_parser(
                name,
                help=summary,
                description=summary[0].upper() + summary[1:] + ".",
                formatter_class=argparse.RawDescriptionHelpFormatter,
            )
            if name == wanted:
                module = importlib.import_module(module_name)
                module.add_arguments(own)
                run = module.run
        args = parser.parse_args(arguments)
        assert run is not None  # the parser insists on a command
        _print_any_name()
        status = int(run(args))
        sys.stdout.flush()  # here, where a full disk or a closed pipe can still be told
        return status
    except KeyboardInterrupt:
        print("trtseg: interrupted", file=sys.stderr)
        return 130
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in EXTRAS:
            raise
        extra = EXTRAS[missing]
        message = f"{wanted} needs {missing}, which is not installed: pip install 'trtseg[{extra}]'"
        return _fail(message, 2)
    except BrokenPipeError:
        _discard_output()  # the reader of our output has gone: nobody to tell
        return 1
    except MemoryError as error:
        return _fail(f"not enough memory{f': {error}' if str(error) else ''}", 1)
    except EngineError as error:
        return _fail(str(error), 1)
    except (TrtsegError, OSError, ValueError) as error:
        status = _fail(_told(error), 2)
        try:
            sys.stdout.flush()
        except (OSError, ValueError):
            _discard_output()
        return status


def _fill_closed_streams() -> None:
    """Give what was started with closed streams (`>&-`) others that lead nowhere.

    The next file that is opened would take the number of a closed one, and with it all that
    libraries print.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDONLY if number == 0 else os.O_WRONLY)  # the lowest free one
        if getattr(sys, name) is None and number > 0:
            setattr(sys, name, open(number, "w", closefd=False))  # noqa: SIM115


def _print_any_name() -> None:
    """Let stdout carry file names that are no valid text, as they are on the disk."""
    stream = sys.stdout
    if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
        unicode = stream.encoding.lower().replace("-", "") == "utf8"
        stream.reconfigure(errors="surrogateescape" if unicode else "backslashreplace")


def _discard_output() -> None:
    """Keep the interpreter from writing again, at its end, what cannot be written."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):  # stdout is no file
        sys.stdout = io.StringIO()


def _told(error: Exception) -> str:
    """The error in one line; what the system said about a file begins with the file."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    return str(error)


def _fail(message: str, status: int) -> int:
    print(f"trtseg: error: {message}", file=sys.stderr)
    return status
