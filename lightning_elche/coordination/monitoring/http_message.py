"""What goes to and fro between our HTTP servers and those who ask."""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from lightning_elche.contracts.strictjson import dump_strictly

__all__ = ["JSON_TYPE", "MAX_BODY_BYTES", "Call", "Reply", "has_token", "json_reply", "refusal"]

JSON_TYPE = "application/json"
MAX_BODY_BYTES = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Call:
    """A request.

    Attributes:
        body: What came with it.
        authorization: The header of that name.
    """

    body: bytes = b""
    authorization: str = ""


@dataclass(frozen=True)
class Reply:
    """An answer.

    Attributes:
        body: What it says.
        status: The status code of HTTP.
        content_type: What the body is.
    """

    body: bytes
    status: int = 200
    content_type: str = JSON_TYPE


def json_reply(value: object, status: int = 200) -> Reply:
    """Return an answer in JSON."""
    return Reply(dump_strictly(value), status)


def refusal(status: int, reason: str) -> Reply:
    """Return an answer that says why there is none."""
    return json_reply({"error": reason}, status)


def has_token(call: Call, token: str) -> bool:
    """Return whether a request carries the token; how long this takes does not tell it."""
    given = call.authorization.removeprefix("Bearer ")
    return hmac.compare_digest(given.encode("utf-8", "replace"), token.encode("utf-8", "replace"))
