"""Gates: what a candidate must pass before it is a sample, each with its figure and its reason."""
