"""Which texts are the same text: normalising, exact hashes, MinHash. Pure functions; the index is in `store`."""
