"""How much of the machine a server gives away."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What a request, a photo and the whole server may take.

    Attributes:
        upload_bytes: of one image file.
        json_bytes: of any other request's body, and of a message on the WebSocket.
        pixels: of one photo.
        photos: kept in the state folder; beyond it the least recently used is removed.
        objects: of one photo.
        prompts: of one object.
        points: of one stroke or lasso.
        memory_bytes: of photos, encodings and sessions in memory; beyond it the least recently
            used leave the memory and come back from the state folder when they are asked for.
        wait_s: how long a request may take to arrive, and then to wait for its turn.
        connections: at once.
    """

    upload_bytes: int = 64 * 2**20
    json_bytes: int = 4 * 2**20
    pixels: int = 100_000_000
    photos: int = 500
    objects: int = 64
    prompts: int = 500
    points: int = 2000
    memory_bytes: int = 2 * 2**30
    wait_s: float = 20.0
    connections: int = 256
