"""Everything that trtseg raises on purpose, beside TypeError and ValueError for wrong arguments."""


class TrtsegError(Exception):
    """Base of the package's own errors."""


class BundleError(TrtsegError, ValueError):
    """A model bundle is missing, incomplete, altered or of another format version."""


class EngineError(TrtsegError, RuntimeError):
    """An inference engine could not be built, loaded or run."""


class OutOfMemory(EngineError):
    """The device, or the limit that was set, has no room; idle buffers were given back before."""


class BackendUnavailable(TrtsegError, RuntimeError):
    """A backend was asked for that this installation or machine does not have."""


class DatasetError(TrtsegError, ValueError):
    """A data set's file is missing, unreadable or inconsistent; the message names it."""


class CheckpointError(TrtsegError, ValueError):
    """A training checkpoint is missing, corrupt or belongs to another network."""
