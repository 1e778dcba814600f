"""One module for each mode: its widgets and what its actions call in `backend/`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hafs_tui.mode_screen import ModeScreen
from hafs_tui.screens.campaigns import CampaignsScreen
from hafs_tui.screens.deploy import DeployScreen
from hafs_tui.screens.evaluation import EvaluationScreen
from hafs_tui.screens.hosts import HostsScreen
from hafs_tui.screens.overview import OverviewScreen
from hafs_tui.screens.preferences import PreferencesScreen
from hafs_tui.screens.review import ReviewScreen
from hafs_tui.screens.training import TrainingScreen


def mode_screens() -> dict[str, Callable[[], ModeScreen[Any]]]:
    """The screen of each mode, in the order of the mode keys."""
    return {
        "overview": OverviewScreen,
        "campaigns": CampaignsScreen,
        "review": ReviewScreen,
        "preferences": PreferencesScreen,
        "training": TrainingScreen,
        "evaluation": EvaluationScreen,
        "deploy": DeployScreen,
        "hosts": HostsScreen,
    }
