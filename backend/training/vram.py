"""How much of a card a run takes, part by part, from a model's dimensions and a recipe.

Every formula names its source. What they describe is the worker's own way of training: transformers with
PEFT adapters under TRL, attention by torch's fused kernels, log-probabilities in tiles instead of whole logits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from backend.contract.recipe import DpoRecipe, Recipe
from backend.training.dimensions import Dimensions

GIB = 2**30
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
CONTEXT_BYTES = GIB
# TRL 1.16, trl/kernels/chunked_logprob.py: the tile in which hidden states meet the head.
TILE_TOKENS, TILE_VOCABULARY = 4096, 32_768
TILE_BYTES_TORCH, TILE_BYTES_TRITON = 31, 2

Logits = Literal["tiled", "tiled-triton", "whole"]


class Part(NamedTuple):
    """One part of the need. `formula` says in words and figures how it was counted."""

    name: str
    bytes: int
    formula: str


@dataclass(frozen=True, slots=True)
class StartAdapter:
    """The adapter that a DPO run starts from: its own rank and targets count, not the recipe's."""

    rank: int
    targets: str = "all-linear"
    dora: bool = False


def parts(
    model: Dimensions, recipe: Recipe, *, start: StartAdapter | None = None, logits: Logits = "tiled"
) -> tuple[Part, ...]:
    """The parts of the need at its peak, in bytes; their sum is the prediction.

    `logits`: "tiled" is TRL without Triton (as on native Windows), "tiled-triton" with it, "whole" the
    logits of a plain model.

    Raises UnknownModel for a target layer that the model lacks.
    """
    adapter = start or StartAdapter(recipe.lora_r, recipe.lora_targets, recipe.use_dora)
    trainable = model.adapter_parameters(adapter.rank, adapter.targets, adapter.dora)
    found = [_weights(model, recipe), _kept_whole(model, recipe)]
    found += _adapter(recipe, trainable)
    if start is not None and isinstance(recipe, DpoRecipe):
        reference = Part(
            "reference adapter", 4 * trainable, f"{trainable:,} x 4 bytes: a frozen copy in fp32"
        )
        found.append(reference)
    found += _activations(model, recipe, adapter, logits)
    found.append(Part("CUDA context", CONTEXT_BYTES, "about 1 GiB of context and libraries' workspaces"))
    return tuple(found)


def tokens(recipe: Recipe) -> int:
    """Tokens of one forward pass: a batch of full length; a pair is two sequences (TRL puts chosen and rejected
    into one batch)."""
    return recipe.batch_size * recipe.max_length * (2 if isinstance(recipe, DpoRecipe) else 1)


def trained_in_8bit(recipe: Recipe) -> bool:
    """Whether the optimizer's states take a byte each."""
    return "8bit" in recipe.optim or (recipe.optim == "auto" and recipe.load_in_4bit)


def _width(recipe: Recipe) -> int:
    """Bytes of a weight that is not packed and of an activation. Nothing asked: bf16, as the worker chooses on
    a card that has it. In fp32 with neither: never on a card."""
    return 2


def _weights(model: Dimensions, recipe: Recipe) -> Part:
    """Linear layers: nf4 takes half a byte, and with double quantisation 8 bits for each 64 weights and 32 bits
    for each 256 of those: 0.516 bytes (Dettmers et al. 2023, arXiv 2305.14314, section 3)."""
    count = model.linear_parameters
    if recipe.load_in_4bit:
        return Part("weights", round(count * NF4_BYTES), f"{count:,} in linear layers x 0.516 bytes (nf4)")
    width = _width(recipe)
    return Part("weights", count * width, f"{count:,} in linear layers x {width} bytes")


def _kept_whole(model: Dimensions, recipe: Recipe) -> Part:
    """Embedding, head, norms and biases, which 4-bit loading leaves as they are (transformers skips the head;
    only linear layers are packed)."""
    count = model.embedding_parameters + model.small_parameters + model.other_parameters
    width = _width(recipe)
    what = "embedding, norms" if model.tied else "embedding, head, norms"
    return Part("embeddings and head", count * width, f"{count:,} in {what} x {width} bytes")


def _adapter(recipe: Recipe, trainable: int) -> list[Part]:
    """Adapter, gradients, optimizer. Beside 16-bit weights PEFT keeps an adapter in fp32 (its
    `autocast_adapter_dtype`); on a 4-bit base TRL makes it bf16 (sft_trainer.py, dpo_trainer.py). Adam has
    two states of the adapter's width; 8-bit Adam a byte each and 8 bytes a block of 256 (Dettmers et al. 2022,
    arXiv 2110.02861)."""
    width = 2 if recipe.load_in_4bit else 4
    states = 2 + 8 / 256 if trained_in_8bit(recipe) else 2.0 * width
    cast = 0 if recipe.load_in_4bit else 2  # autocast keeps a 16-bit copy of fp32 leaves for the pass
    return [
        Part("adapter", trainable * (width + cast), f"{trainable:,} trainable x {width + cast} bytes"),
        Part("gradients", trainable * width, f"{trainable:,} x {width} bytes"),
        Part(
            "optimizer", round(trainable * states), f"{trainable:,} x {states:.4g} bytes (Adam's two states)"
        ),
    ]


def _activations(model: Dimensions, recipe: Recipe, adapter: StartAdapter, logits: Logits) -> list[Part]:
    """What a pass keeps for its way back. With gradient checkpointing: the input of every layer, then at any
    moment either one layer computed anew or the logits, never both (Chen et al. 2016, arXiv 1604.06174)."""
    count, width = tokens(recipe), _width(recipe)
    layer = layer_bytes(model, recipe, adapter)
    passing = passing_bytes(model, recipe)
    at_logits = _logits(model, count, logits)
    if recipe.gradient_checkpointing:
        kept = count * model.layers * model.hidden * width
        formula = f"{count:,} tokens x {model.layers} layers x {model.hidden} x {width} bytes (checkpoints)"
        one = count * (layer + passing)
        working = (one, f"{count:,} tokens x {layer + passing:,} bytes: one layer computed anew")
    else:
        kept = count * model.layers * layer
        formula = f"{count:,} tokens x {model.layers} layers x {layer:,} bytes (no checkpointing)"
        working = (count * passing, f"{count:,} tokens x {passing:,} bytes on the way back")
    peak, why = max(working, at_logits)
    found = [Part("activations", kept, formula), Part("working set", peak, why)]
    if recipe.load_in_4bit:
        largest = max(linear.inputs * linear.outputs for linear in model.linears)
        found.append(Part("unpacked weight", largest * 2, f"{largest:,} x 2 bytes: one nf4 layer in use"))
    return found


def layer_bytes(model: Dimensions, recipe: Recipe, adapter: StartAdapter) -> int:
    """Bytes a token that one decoder layer keeps for its way back.

    Counted from transformers' modelling files: each norm keeps its input in fp32; attention its queries, keys,
    values and output; the gated MLP three products; each adapter its input (and, with dropout, a mask of a
    byte; without, layers with one input share it on a 4-bit base). Frozen weights keep no input. Attention
    that is not fused keeps its scores: heads x length x (4 + 2 + 2 capped).
    """
    width = _width(recipe)
    query, keys = model.heads * model.head_dim, model.kv_heads * model.head_dim
    kept = 4 * (model.norms * model.hidden + model.normed_heads * model.head_dim)
    kept += width * (2 * query + 2 * keys) + 4 * model.heads
    kept += width * 3 * model.intermediate
    if model.eager_attention:
        kept += 8 * model.heads * recipe.max_length
    targeted = model.targeted(adapter.targets)
    dropped = recipe.lora_dropout > 0
    if dropped or not recipe.load_in_4bit:
        kept += sum(linear.inputs * (2 + dropped) for linear in targeted)
    else:
        groups = {(linear.inputs, linear.name in ("o_proj", "down_proj")) for linear in targeted}
        kept += sum(inputs * 2 for inputs, _ in groups)
    return kept + 2 * adapter.rank * len(targeted)


def passing_bytes(model: Dimensions, recipe: Recipe) -> int:
    """Bytes a token of gradients that are alive together on the way back through one layer."""
    return _width(recipe) * 3 * model.intermediate + 8 * model.hidden


def _logits(model: Dimensions, count: int, logits: Logits) -> tuple[int, str]:
    """The head. Whole: fp32 logits and their gradients, 8 bytes for each word of the vocabulary. In tiles of at
    most 4096 tokens x 32768 words (TRL 1.16): 2 bytes with Triton, and 31 where torch does it step by step
    (fp32 copies of the tile in `_backward_tile`), and the hidden states' gradient in fp32."""
    if logits == "whole":
        return count * 8 * model.vocab, f"{count:,} tokens x 8 bytes x {model.vocab:,} words: whole logits"
    each = TILE_BYTES_TRITON if logits == "tiled-triton" else TILE_BYTES_TORCH
    rows, columns = min(count, TILE_TOKENS), min(model.vocab, TILE_VOCABULARY)
    size = rows * columns * each + count * model.hidden * 8
    return size, f"a tile of {rows:,} tokens x {columns:,} words x {each} bytes, and hidden gradients"
