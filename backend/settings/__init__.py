"""What people set: pydantic models of the TOML files, and where things lie in a workspace."""

from backend.settings.load import SettingsError, load_hosts, load_settings, remove_host, save_host
from backend.settings.models import HostSettings, HybridSettings, ProviderSettings, Settings
from backend.settings.workspace import Workspace, home_folder, open_workspace

__all__ = [
    "HostSettings",
    "HybridSettings",
    "ProviderSettings",
    "Settings",
    "SettingsError",
    "Workspace",
    "home_folder",
    "load_hosts",
    "load_settings",
    "open_workspace",
    "remove_host",
    "save_host",
]
