"""Keeps requests that are no HTTP out of the log: aiohttp shows a part of them, in which a token may be."""

from __future__ import annotations

import logging

from aiohttp.http_exceptions import HttpProcessingError

_AIOHTTP = logging.getLogger("aiohttp.server")


def keep_requests_out_of_logs() -> None:
    """From now on aiohttp logs errors of ours, with their traceback, and no broken request. Idempotent."""
    _AIOHTTP.addFilter(_is_ours)


def _is_ours(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))
