"""The shapes of settings.toml and hosts.toml. Unknown keys are refused; secrets have no place here."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

ProviderKind = Literal["openai", "gemini", "anthropic", "ollama", "embedded"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ProviderSettings(_Strict):
    """How a provider is reached. `base_url` None is the provider's own; keys come from the environment
    or the keyring. `rpm` and `tpm` are the most requests and tokens a minute, of all campaigns together."""

    base_url: str | None = None
    timeout_s: Annotated[float, Field(gt=0, le=3600)] = 120.0
    parallel: Annotated[int, Field(ge=1, le=512)] = 8
    rpm: Annotated[int, Field(ge=1)] | None = None
    tpm: Annotated[int, Field(ge=1)] | None = None


class HybridSettings(_Strict):
    """When a campaign with a local model uses it: thresholds are GPU utilisation in percent; a reading older
    than `reading_max_age_sec` counts as none."""

    enabled: bool = True
    gpu_threshold_low: Annotated[float, Field(ge=0, le=100)] = 30.0
    gpu_threshold_high: Annotated[float, Field(ge=0, le=100)] = 60.0
    monitor_interval_sec: Annotated[float, Field(gt=0, le=600)] = 5.0
    reading_max_age_sec: Annotated[float, Field(gt=0, le=3600)] = 15.0


class CampaignDefaults(_Strict):
    """What a new campaign has where nothing else is said."""

    temperature: Annotated[float, Field(ge=0, le=2)] = 0.7
    parallel: Annotated[int, Field(ge=1, le=512)] = 4
    seed: int = 42


class Tools(_Strict):
    """Programs and libraries that lie elsewhere than where they are looked for."""

    asar: Path | None = None
    snes_core: Path | None = None
    gguf_converter: Path | None = None


class ReviewSettings(_Strict):
    """The name under which decisions are recorded, and the reasons that the reject key offers (nine keys)."""

    reviewer: Annotated[str, Field(min_length=1)] = Field(default_factory=getpass.getuser)
    reasons: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(max_length=9)] = (
        "wrong",
        "does not assemble",
        "not what was asked",
        "unclear",
        "poor style",
        "duplicate",
    )


class AppSettings(_Strict):
    """The look and the keys of the app: `keys` maps an action's id to a key."""

    theme: Literal["dark", "light"] = "dark"
    keys: dict[str, str] = {}


class Settings(_Strict):
    providers: dict[ProviderKind, ProviderSettings] = {}
    campaign: CampaignDefaults = CampaignDefaults()
    hybrid: HybridSettings = HybridSettings()
    tools: Tools = Tools()
    review: ReviewSettings = Field(default_factory=ReviewSettings)
    app: AppSettings = AppSettings()

    def provider(self, kind: str) -> ProviderSettings:
        """The settings of a provider, or the defaults where nothing is set for it."""
        return {str(k): v for k, v in self.providers.items()}.get(kind, ProviderSettings())


class SlurmSettings(_Strict):
    """What Slurm is asked for each job: sbatch's own words; `lines` stand in the batch script as they are."""

    partition: str = ""
    account: str = ""
    gpus: Annotated[int, Field(ge=0, le=64)] = 0
    time: str = ""
    lines: tuple[str, ...] = ()


class HostSettings(_Strict):
    """One host of hosts.toml. `root` is the folder under which everything of ours lies there;
    `python` the interpreter that has the training libraries; `slots` how many jobs of its queue run at once,
    one for each GPU (one where there is none) if it is not set; `min_free_gib` what must be free on its disk
    to launch there, and what a running job is warned and at half of it paused below."""

    kind: Literal["local", "ssh"] = "ssh"
    address: str | None = None
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    user: str | None = None
    key: Path | None = None
    root: str | None = None
    python: str | None = None
    scheduler: Literal["none", "slurm"] = "none"
    slurm: SlurmSettings = SlurmSettings()
    slots: Annotated[int, Field(ge=1, le=64)] | None = None
    min_free_gib: Annotated[float, Field(ge=0, le=100_000)] = 1.0


class HostsFile(_Strict):
    hosts: dict[str, HostSettings] = {}
