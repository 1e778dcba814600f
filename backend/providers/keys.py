"""Where API keys come from: the environment, then the OS keyring (service "hafs-tui"). Never from a file of
ours, and never into a log."""

from __future__ import annotations

import os
from collections.abc import Mapping
from urllib.parse import urlsplit

from backend.providers.base import ProviderError
from backend.providers.wire import missing_key

KEYRING_SERVICE = "hafs-tui"
VARIABLES: dict[str, tuple[str, ...]] = {
    "gemini": ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
    "anthropic": ("ANTHROPIC_API_KEY",),
    "openai": ("OPENAI_API_KEY",),
}
"""The environment variables of each provider that takes a key; the first found wins."""
KEY_NAMES = tuple(name for names in VARIABLES.values() for name in names)
"""Every variable that may hold a key: no process that we start inherits them."""
_PUBLIC = {
    "gemini": "generativelanguage.googleapis.com",
    "anthropic": "api.anthropic.com",
    "openai": "api.openai.com",
}


def resolve_key(kind: str, base_url: str = "", *, environ: Mapping[str, str] | None = None) -> str:
    """The key for a provider of this kind at this address ("" is its public one).

    Empty for the kinds that take none, and for an address of one's own, which may need none. The keyring may
    ask its user to unlock it: call this in a thread. Raises ProviderError("auth") naming the variable and the
    provider where a public address has no key.
    """
    variables = VARIABLES.get(kind, ())
    environment = os.environ if environ is None else environ
    for variable in variables:
        if environment.get(variable, "").strip():
            return environment[variable].strip()
    needed = bool(variables) and (not base_url or urlsplit(base_url).hostname == _PUBLIC[kind])
    for variable in variables:
        stored = _from_keyring(variable, kind, needed)
        if stored:
            return stored
    if needed:
        raise missing_key(kind, variables[0])
    return ""


def _from_keyring(variable: str, kind: str, needed: bool) -> str:
    """What the OS keyring holds under this name; "" where it holds nothing or there is no keyring. One that
    cannot be read (locked) is an error only where the key is needed."""
    import keyring
    from keyring.errors import KeyringError, NoKeyringError

    try:
        return (keyring.get_password(KEYRING_SERVICE, variable) or "").strip()
    except NoKeyringError:
        return ""
    except KeyringError as error:
        if not needed:
            return ""
        raise ProviderError(
            "auth",
            f"the OS keyring cannot be read ({error}).",
            kind,
            remedy=f"Unlock it, or set {variable}.",
        ) from error
