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
# Bytes of a weight that is not packed, and of an activation: fp16 or bf16. Where a recipe names neither, the
# worker takes bf16 on a card that has it (every card since 2020).
WIDTH = 2
# TRL 1.16, trl/kernels/chunked_logprob.py: the tile in which hidden states meet the head.
TILE_TOKENS, TILE_VOCABULARY = 4096, 32_768
TILE_BYTES_TORCH, TILE_BYTES_TRITON = 31, 2
# Of each score of attention that is not fused: before and after its cap, softmax in fp32, and its 16-bit copy.
SCORE_BYTES = 8
HEAD_INPUT_BYTES = 20  # of each hidden figure: the last norm in fp32, its gradients, and the head's in fp32

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


def _weights(model: Dimensions, recipe: Recipe) -> Part:
    """Linear layers: nf4 takes half a byte, and with double quantisation 8 bits for each 64 weights and 32 bits
    for each 256 of those: 0.516 bytes (Dettmers et al. 2023, arXiv 2305.14314, section 3)."""
    count = model.linear_parameters
    if recipe.load_in_4bit:
        return Part("weights", round(count * NF4_BYTES), f"{count:,} in linear layers x 0.516 bytes (nf4)")
    return Part("weights", count * WIDTH, f"{count:,} in linear layers x {WIDTH} bytes")


def _kept_whole(model: Dimensions, recipe: Recipe) -> Part:
    """Embedding, head, norms and biases, which 4-bit loading leaves as they are (transformers skips the head;
    only linear layers are packed)."""
    count = model.embedding_parameters + model.small_parameters + model.other_parameters
    what = "embedding, norms" if model.tied else "embedding, head, norms"
    return Part("embeddings and head", count * WIDTH, f"{count:,} in {what} x {WIDTH} bytes")


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
    count = tokens(recipe)
    layer = layer_bytes(model, recipe, adapter)
    passing = passing_bytes(model, recipe)
    at_logits = _logits(model, count, logits)
    if recipe.gradient_checkpointing:
        kept = count * model.layers * model.hidden * WIDTH
        formula = f"{count:,} tokens x {model.layers} layers x {model.hidden} x {WIDTH} bytes (checkpoints)"
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

    Counted from transformers' modelling files, and equal to the byte to what a real step keeps
    (tests/training/measure_step.py): each norm its input in fp32; attention its queries, keys, values and
    output; the gated MLP three products; each adapter what comes in and what its first half makes of it. With
    dropout each keeps a dropped copy and a mask of a byte; without, on a 4-bit base, those with one input share
    it. Frozen weights keep no input. Attention that is not fused keeps its scores.
    """
    query, keys = model.heads * model.head_dim, model.kv_heads * model.head_dim
    kept = 4 * (model.norms * (model.hidden + 1) + model.normed_heads * (model.head_dim + 1))
    kept += WIDTH * (2 * query + 2 * keys) + 4 * model.heads
    kept += WIDTH * 3 * model.intermediate
    if model.model_type == "phi3":
        kept += WIDTH * (query + 2 * keys)  # the fused projection beside its rotated parts
    if model.eager_attention:
        kept += SCORE_BYTES * model.heads * recipe.max_length
    targeted = model.targeted(adapter.targets)
    dropped = recipe.lora_dropout > 0
    if dropped or not recipe.load_in_4bit:
        kept += sum(linear.inputs * (WIDTH + dropped) for linear in targeted)
    else:
        sources = {_source(linear.name): linear.inputs for linear in targeted}
        kept += sum(WIDTH * inputs for source, inputs in sources.items() if source != "attention")
    return kept + WIDTH * adapter.rank * len(targeted)


def _source(linear: str) -> str:
    """Where a linear layer's input comes from; attention's output is kept by attention itself."""
    if linear == "o_proj":
        return "attention"
    if linear == "down_proj":
        return "mlp"
    return "second norm" if linear in ("gate_proj", "up_proj", "gate_up_proj") else "first norm"


def passing_bytes(model: Dimensions, recipe: Recipe) -> int:
    """Bytes a token that are alive beside a layer's kept ones on the way back through its MLP.

    Measured like `layer_bytes`: below 4 x intermediate with 16-bit adapters (a 4-bit base); with fp32 adapters
    4 x hidden + 6 x intermediate, and 10 x intermediate with dropout.
    """
    if recipe.load_in_4bit:
        return 4 * model.intermediate
    return 4 * model.hidden + (10 if recipe.lora_dropout > 0 else 6) * model.intermediate


def _logits(model: Dimensions, count: int, logits: Logits) -> tuple[int, str]:
    """The head. Whole: fp32 logits and their gradients, 8 bytes for each word of the vocabulary. In tiles of at
    most 4096 tokens x 32768 words (TRL 1.16): 2 bytes with Triton, and 31 where torch does it step by step
    (fp32 copies of the tile in `_backward_tile`), and the hidden states' gradient in fp32."""
    if logits == "whole":
        return count * 8 * model.vocab, f"{count:,} tokens x 8 bytes x {model.vocab:,} words: whole logits"
    each = TILE_BYTES_TRITON if logits == "tiled-triton" else TILE_BYTES_TORCH
    rows, columns = min(count, TILE_TOKENS), min(model.vocab, TILE_VOCABULARY)
    size = rows * columns * each + count * model.hidden * HEAD_INPUT_BYTES
    return size, f"a tile of {rows:,} tokens x {columns:,} words x {each} bytes, and hidden gradients"
