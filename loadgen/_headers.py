"""Names that moved to `loadgen.options`."""

from __future__ import annotations

from loadgen.options._headers import headers_of, secrets_of

__all__ = ["headers_of", "secrets_of"]
