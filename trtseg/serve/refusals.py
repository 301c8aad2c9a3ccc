"""Why a request is refused: each has the HTTP status that tells a program the same."""

from __future__ import annotations

from trtseg.errors import TrtsegError


class Refusal(TrtsegError):
    """A request that cannot be answered; its message is for a person."""

    status = 400


class NotFound(Refusal):
    """There is no such photo or object (any more)."""

    status = 404


class TooSlow(Refusal):
    """The request did not arrive in time."""

    status = 408


class TooLarge(Refusal):
    """More bytes, pixels, photos or prompts than the server was told to take."""

    status = 413


class NotAnImage(Refusal):
    """The upload is no image that can be read."""

    status = 415


class Busy(Refusal):
    """Others' clicks took longer than a request may wait."""

    status = 503


class NotStored(Refusal):
    """The state folder could not be written; nothing was changed."""

    status = 507
