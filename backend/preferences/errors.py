"""How this room fails."""


class PreferenceError(ValueError):
    """Candidates or pairs that cannot be made, decided or exported; the message says why and what to do."""
