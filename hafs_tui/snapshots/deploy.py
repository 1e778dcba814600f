"""What the Deploy screen shows: the registry's models with their lineage, and every deployment as it really is."""

from __future__ import annotations

import time
from dataclasses import dataclass

from backend.deployment.serving import deployments as checked
from backend.registry.catalog import list_models
from backend.registry.lineage import Lineage, lineage
from backend.settings import Workspace
from backend.store import deployments
from backend.store.deployments import Deployment
from backend.store.models import Model

# Whether a deployment still answers costs a question to it, so it is not asked with every row that changes.
CHECKED_EVERY_S = 5.0


@dataclass(frozen=True, slots=True)
class DeploySnapshot:
    """`lineage` is that of the model under the cursor."""

    models: tuple[Model, ...]
    deployments: tuple[Deployment, ...]
    lineage: Lineage | None


class DeployReader:
    """Reads the rows, and from time to time asks what serves whether it does."""

    def __init__(self) -> None:
        self._checked_at = float("-inf")

    async def read(self, ws: Workspace, selected: str | None) -> DeploySnapshot:
        """Everything that the screen shows; `selected` is a model's name, None the newest."""
        models = await list_models(ws)
        if time.monotonic() - self._checked_at > CHECKED_EVERY_S:
            found = await checked(ws)
            self._checked_at = time.monotonic()
        else:
            found = await deployments.every(ws.db)
        chosen = next((one for one in models if one.name == selected), models[0] if models else None)
        return DeploySnapshot(
            models=tuple(models),
            deployments=tuple(found),
            lineage=await lineage(ws, chosen.name) if chosen is not None else None,
        )
