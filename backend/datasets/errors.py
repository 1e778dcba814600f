"""How this room fails."""


class DatasetError(ValueError):
    """A dataset that cannot be built, read or written; the message says where, why, and what to do."""
