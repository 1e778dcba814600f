"""What runs on a GPU host: `sft`, `dpo`, `evaluate`, `candidates`, `merge`, `convert`, `prepare_base`.

Imports the training stack and `backend.contract`, nothing else of ours, and runs from a zip.
"""
