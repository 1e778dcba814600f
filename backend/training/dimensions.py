"""What a model is made of, from its config.json or from the figures that ship in `config/models.toml`.

Counted here: its linear layers (those that get an adapter and that 4-bit loading packs), and everything else
(embeddings, head, norms, biases), which stays in 16 or 32 bits.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, NamedTuple

from backend.settings import SettingsError, Workspace

# What a config.json may leave out because transformers has a default for it.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "gemma3_text": {
        "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "vocab_size": 262_208,
        "max_position_embeddings": 131_072, "tie_word_embeddings": True,
    },
    "gemma2": {"head_dim": 256, "tie_word_embeddings": True},
    "llama": {}, "mistral": {}, "qwen2": {}, "qwen3": {"head_dim": 128}, "phi3": {},
}  # fmt: skip
_NEEDED = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size")


class UnknownModel(LookupError):
    """The dimensions of a model are not known here; the message says what would tell them."""


class Linear(NamedTuple):
    """One linear layer of each decoder layer: `outputs` x `inputs` weights."""

    name: str
    inputs: int
    outputs: int


@dataclass(frozen=True, slots=True)
class Dimensions:
    """A decoder of the Llama kind. `source` says where the figures are from; `other_parameters` counts what is
    loaded beside the decoder (a vision tower)."""

    name: str
    source: str
    model_type: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    tied: bool
    max_positions: int
    biased: bool = False
    other_parameters: int = 0

    @property
    def linears(self) -> tuple[Linear, ...]:
        """The linear layers of one decoder layer, by the names that transformers gives them."""
        query, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        down = Linear("down_proj", self.intermediate, self.hidden)
        o = Linear("o_proj", query, self.hidden)
        if self.model_type == "phi3":
            qkv = Linear("qkv_proj", self.hidden, query + 2 * keys)
            return (qkv, o, Linear("gate_up_proj", self.hidden, 2 * self.intermediate), down)
        return (
            Linear("q_proj", self.hidden, query),
            Linear("k_proj", self.hidden, keys),
            Linear("v_proj", self.hidden, keys),
            o,
            Linear("gate_proj", self.hidden, self.intermediate),
            Linear("up_proj", self.hidden, self.intermediate),
            down,
        )

    @property
    def linear_parameters(self) -> int:
        """Weights of all linear layers but the head."""
        return self.layers * sum(linear.inputs * linear.outputs for linear in self.linears)

    @property
    def embedding_parameters(self) -> int:
        """The embedding, and the head where it is not the same matrix."""
        return self.vocab * self.hidden * (1 if self.tied else 2)

    @property
    def norms(self) -> int:
        """RMSNorms over the hidden size in one decoder layer."""
        return 4 if self.model_type.startswith("gemma") else 2

    @property
    def normed_heads(self) -> int:
        """Heads of one decoder layer whose queries or keys are normed."""
        return self.heads + self.kv_heads if self.model_type in ("qwen3", "gemma3_text") else 0

    @property
    def small_parameters(self) -> int:
        """Norms and biases."""
        layer = self.norms * self.hidden + (2 * self.head_dim if self.normed_heads else 0)
        if self.model_type == "qwen2":
            layer += (self.heads + 2 * self.kv_heads) * self.head_dim
        elif self.biased:
            layer += (self.heads + 2 * self.kv_heads) * self.head_dim + self.hidden
        return self.layers * layer + self.hidden

    @property
    def parameters(self) -> int:
        return (
            self.linear_parameters + self.embedding_parameters + self.small_parameters + self.other_parameters
        )

    @property
    def eager_attention(self) -> bool:
        """Whether transformers computes its attention scores as a whole matrix: Gemma 2 caps them, which no
        fused kernel of torch does (`_supports_sdpa` is False in its modelling file)."""
        return self.model_type == "gemma2"

    def adapter_parameters(self, rank: int, targets: str = "all-linear", dora: bool = False) -> int:
        """Trainable parameters of a LoRA adapter: rank x (inputs + outputs) of each target (Hu et al. 2021,
        arXiv 2106.09685); DoRA adds a magnitude for each output (Liu et al. 2024, arXiv 2402.09353).

        Rank 64 on all linear layers of Qwen2.5-14B is 275,251,200.
        """
        return self.layers * sum(
            rank * (linear.inputs + linear.outputs) + (linear.outputs if dora else 0)
            for linear in self.targeted(targets)
        )

    def targeted(self, targets: str) -> tuple[Linear, ...]:
        """The linear layers that an adapter sits on. Raises UnknownModel for a name that this model lacks."""
        if targets == "all-linear":
            return self.linears
        wanted = [name.strip().rsplit(".", 1)[-1] for name in targets.split(",") if name.strip()]
        names = {linear.name for linear in self.linears}
        if missing := sorted(set(wanted) - names):
            raise UnknownModel(
                f"{self.name} has no layer {', '.join(missing)}; lora_targets may name: {', '.join(sorted(names))}"
            )
        return tuple(linear for linear in self.linears if linear.name in wanted)


def from_config(config: Mapping[str, Any], name: str, source: str) -> Dimensions:
    """The dimensions that a config.json tells.

    Raises UnknownModel for an architecture that the planner does not know, or a figure that is missing.
    """
    inner = config.get("text_config")
    others = int(config.get("other_parameters", 0))
    if isinstance(inner, Mapping):
        config, vision = inner, config.get("vision_config") or {}
        others = others or _tower(vision)
    kind = str(config.get("model_type", ""))
    if kind not in _DEFAULTS:
        raise UnknownModel(
            f"{name}: {source} says model_type {kind!r}, which the planner does not know; it knows "
            f"{', '.join(_DEFAULTS)}"
        )
    values = {**_DEFAULTS[kind], **{key: value for key, value in config.items() if value is not None}}
    if missing := [key for key in _NEEDED if not isinstance(values.get(key), int)]:
        raise UnknownModel(f"{name}: {source} lacks {', '.join(missing)}")
    heads = values["num_attention_heads"]
    return Dimensions(
        name=name,
        source=source,
        model_type=kind,
        hidden=values["hidden_size"],
        layers=values["num_hidden_layers"],
        heads=heads,
        kv_heads=values.get("num_key_value_heads", heads),
        head_dim=values.get("head_dim") or values["hidden_size"] // heads,
        intermediate=values["intermediate_size"],
        vocab=values["vocab_size"],
        tied=bool(values.get("tie_word_embeddings", False)),
        max_positions=values.get("max_position_embeddings", 0),
        biased=bool(values.get("attention_bias", False)),
        other_parameters=others,
    )


def _tower(vision: Mapping[str, Any]) -> int:
    """Parameters of a SigLIP vision tower, without its embeddings and projector (2 in 100 of it)."""
    hidden, layers = int(vision.get("hidden_size", 0)), int(vision.get("num_hidden_layers", 0))
    return layers * (4 * hidden * hidden + 2 * hidden * int(vision.get("intermediate_size", 0)))


def shipped(ws: Workspace | None = None) -> dict[str, Mapping[str, Any]]:
    """The entries of `config/models.toml` by the models' names in lower case; the workspace's own lie over them.

    Raises SettingsError for a file that is no valid TOML or an entry without names.
    """
    found: dict[str, Mapping[str, Any]] = {}
    files: list[Any] = [resources.files("config") / "models.toml"]
    if ws is not None and (own := ws.config / "models.toml").is_file():
        files.append(own)
    for file in files:
        try:
            entries = tomllib.loads(file.read_text("utf-8")).get("model", [])
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SettingsError(f"{file}: not valid TOML: {error}") from error
        for number, entry in enumerate(entries, 1):
            if not entry.get("names"):
                raise SettingsError(
                    f"{file}: model {number}: names: missing; give the model's names on its hub"
                )
            found.update({name.lower(): entry for name in entry["names"]})
    return found


def known(name: str, ws: Workspace | None = None) -> Dimensions:
    """The dimensions of a hub model that `config/models.toml` tells: by its name, else by the part after the
    slash (a mirror under another owner). Raises UnknownModel with the nearest names.
    """
    models = shipped(ws)
    wanted = name.removeprefix("hub:").lower()
    entry = models.get(wanted)
    if entry is None:
        last = wanted.rsplit("/", 1)[-1].removesuffix("-bnb-4bit").removesuffix("-unsloth")
        entry = next((one for full, one in models.items() if full.rsplit("/", 1)[-1] == last), None)
    if entry is None:
        raise UnknownModel(
            f"the dimensions of {name} are not known here. Give a folder that holds its config.json "
            "(--base_model path:FOLDER), or add the model to config/models.toml of the workspace"
        )
    return from_config(entry, name.removeprefix("hub:"), "config/models.toml")
