"""Review: what people (and policies) decide about samples, as an append-only log that can always be undone."""

from backend.review.log import ReviewError, Standing

__all__ = ["ReviewError", "Standing"]
