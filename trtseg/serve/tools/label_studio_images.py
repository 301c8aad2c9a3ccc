"""The images of a Label Studio, fetched with an access token of it."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urljoin, urlsplit

from trtseg.serve.refusals import NotAnImage, TooLarge
from trtseg.serve.tools import prompted

_ANSWER_BYTES = 1 << 16  # of a token


class LabelStudioImages:
    """Reads images from one Label Studio.

    Args:
        url: its address; "" for none, then only images within requests are read.
        key: a personal access token, which is exchanged for short-lived ones as they expire, or a
            legacy token, which is sent as it is.
        limit_bytes: larger files are refused.
        wait_s: for an answer.
    """

    def __init__(self, url: str, key: str, limit_bytes: int, wait_s: float) -> None:
        self._url, self._key = url, key
        self._limit_bytes, self._wait_s = limit_bytes, wait_s
        self._personal = key.count(".") == 2  # a JSON web token
        self._access = ""
        self._opener = urllib.request.build_opener(_SameHost())

    def read(self, place: str) -> bytes:
        """An image's file: of a data URI, or from that Label Studio alone.

        Raises:
            NotAnImage: it lies elsewhere, or cannot be fetched.
            TooLarge: it has too many bytes.
        """
        if place.startswith("data:"):
            return prompted.decoded(place)
        wanted = urljoin(f"{self._url.rstrip('/')}/", place) if self._url else ""
        here, there = urlsplit(self._url), urlsplit(wanted)
        if not self._url or (here.scheme, here.netloc) != (there.scheme, there.netloc):
            raise NotAnImage("the image lies elsewhere; see trtseg serve --label-studio")
        try:
            data = self._fetch(wanted)
        except (urllib.error.URLError, OSError, ValueError) as error:
            raise NotAnImage(f"Label Studio did not give the image: {error}") from None
        if len(data) > self._limit_bytes:
            raise TooLarge(f"the image has more than {self._limit_bytes} bytes")
        return data

    def _fetch(self, wanted: str) -> bytes:
        if not self._personal:
            return self._open(wanted, f"Token {self._key}", self._limit_bytes + 1)
        if self._access:
            try:
                return self._open(wanted, f"Bearer {self._access}", self._limit_bytes + 1)
            except urllib.error.HTTPError as error:
                if error.code != 401:
                    raise
        self._access = self._renewed()
        return self._open(wanted, f"Bearer {self._access}", self._limit_bytes + 1)

    def _renewed(self) -> str:
        """A new short-lived token."""
        place = urljoin(f"{self._url.rstrip('/')}/", "api/token/refresh/")
        body = json.dumps({"refresh": self._key}).encode()
        answer = json.loads(self._open(place, "", _ANSWER_BYTES, body))
        access = answer.get("access") if isinstance(answer, dict) else None
        if not isinstance(access, str):
            raise ValueError("it gave no access token for the key")
        return access

    def _open(self, place: str, authorization: str, limit: int, body: bytes | None = None) -> bytes:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if authorization:
            headers["Authorization"] = authorization
        request = urllib.request.Request(place, body, headers)
        with self._opener.open(request, timeout=self._wait_s) as found:
            data: bytes = found.read(limit)
        return data


class _SameHost(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None
