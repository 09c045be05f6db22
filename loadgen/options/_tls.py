"""Whom to trust under TLS: --ca, --cert and --insecure, for probe, engine and metrics alike."""

from __future__ import annotations

import ssl

from loadgen.options._settings import Settings
from loadgen.options._values import authorities, own_certificate


def ssl_of(settings: Settings) -> bool | ssl.SSLContext:
    """aiohttp's `ssl`: True for the system's authorities, False for no check, else a context.

    Raises ValueError that names the option whose file this machine lacks or can't use.
    """
    if settings.ca is None and settings.cert is None:
        return not settings.insecure
    context = ssl.create_default_context()
    try:
        if settings.ca is not None:
            context.load_verify_locations(cafile=authorities(settings.ca))
        if settings.cert is not None:
            context.load_cert_chain(own_certificate(settings.cert))
    except ValueError as error:
        raise ValueError(f"--ca, --cert: {': '.join(map(str, error.args))}") from None
    if settings.insecure:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
