"""One module for each mode: what its screen shows, as frozen dataclasses, and the reading of it."""
