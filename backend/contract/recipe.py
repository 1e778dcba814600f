"""The recipes: hyperparameters of supervised and preference fine-tuning.

Field names are the flags that the request names (`--lora_r`, `--batch_size`, `--sft_model`, ...). Units:
steps are optimizer steps, lengths are tokens. Defaults follow TRL's "LoRA without regret" (all linear
layers, about ten times the learning rate of full fine-tuning) and, for DPO, LoRA at 5e-6.
"""

from __future__ import annotations

from dataclasses import dataclass

from backend.contract.options import option

SCHEDULERS = ("cosine", "linear", "constant", "constant_with_warmup")
# TRL's names. "auto": 8-bit on a card with a 4-bit base, else plain; without a card always plain.
OPTIMIZERS = ("auto", "adamw_torch", "adamw_8bit", "paged_adamw_8bit")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tuning:
    """What supervised and preference fine-tuning have in common. `0` in a step count means "you choose"."""

    output_dir: str = option("folder for checkpoints/ and final/")
    lora_r: int = option("rank of the adapter", 16, minimum=1, maximum=1024)
    lora_alpha: int = option("scale of the adapter; one to two times the rank", 32, minimum=1)
    lora_dropout: float = option("dropout before the adapter", 0.05, minimum=0, maximum=0.9)
    lora_targets: str = option(
        "layers that get an adapter: all-linear, or names split by commas", "all-linear"
    )
    use_rslora: bool = option("scale by alpha/sqrt(r); for high ranks", False)
    use_dora: bool = option("split weights into magnitude and direction; slower", False)
    batch_size: int = option("samples in one forward pass", 4, minimum=1)
    gradient_accumulation_steps: int = option("forward passes in one step", 4, minimum=1)
    learning_rate: float = option("peak learning rate", 2e-4, above=0, maximum=1)
    lr_scheduler: str = option("how the learning rate falls", "cosine", choices=SCHEDULERS)
    num_epochs: float = option("passes over the data", 3.0, above=0)
    max_steps: int = option("stop after this many steps; 0: num_epochs decides", 0, minimum=0)
    warmup_steps: int = option("steps of rising learning rate; -1: five in a hundred", -1, minimum=-1)
    optim: str = option(
        "optimizer; auto: paged_adamw_8bit for a 4-bit base. Without a card always adamw_torch",
        "auto",
        choices=OPTIMIZERS,
    )
    weight_decay: float = option("weight decay", 0.0, minimum=0, maximum=1)
    max_grad_norm: float = option("gradients are clipped to this norm", 1.0, above=0)
    max_length: int = option("tokens of one sample; what is longer is cut", 1024, minimum=8)
    fp16: bool = option("half precision; bf16 is safer where the card has it", False)
    bf16: bool = option("bfloat16; neither given: bf16 on a card that has it, else fp32", False)
    gradient_checkpointing: bool = option("less memory, about a third slower", False)
    load_in_4bit: bool = option("QLoRA: the base in nf4 with double quantisation", False)
    seed: int = option("seed of shuffling, dropout and the adapter's start", 42, minimum=0)
    eval_steps: int = option("evaluate every so many steps; 0: ten times in a run", 0, minimum=0)
    save_steps: int = option("checkpoint every so many steps; 0: ten times in a run", 0, minimum=0)
    save_total_limit: int = option("checkpoints that are kept", 3, minimum=1)
    logging_steps: int = option("a metrics event every so many steps", 1, minimum=1)
    report_to: str = option("none, or a tracker that TRL knows (tensorboard, trackio, wandb)", "none")

    def problems(self) -> list[str]:
        """What is wrong between fields, each with its remedy."""
        if self.fp16 and self.bf16:
            return ["fp16, bf16: both are set; keep one (bf16 where the card has it)"]
        return []


@dataclass(frozen=True, slots=True, kw_only=True)
class SftRecipe(_Tuning):
    """Supervised fine-tuning of an adapter on instruction rows."""

    base_model: str = option("the base: a model folder, or a hub name that the host can fetch")
    dataset: str = option("a folder with train.jsonl and perhaps val.jsonl, or one JSONL file")
    eval_dataset: str = option("a JSONL file for the evaluation loss; empty: the folder's val.jsonl", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class DpoRecipe(_Tuning):
    """Preference fine-tuning (DPO) from an SFT adapter, or with a fresh adapter on a whole model."""

    sft_model: str = option("an SFT adapter's folder (final/), or a merged or base model")
    preference_data: str = option("a folder with train.jsonl, or a JSONL file of prompt, chosen, rejected")
    eval_dataset: str = option("a JSONL file of held-out pairs; empty: the folder's val.jsonl", "")
    base_model: str = option("the adapter's base, where it lies elsewhere than the adapter says", "")
    beta: float = option("how strongly the reference holds; lower moves further", 0.1, above=0)
    learning_rate: float = option("peak learning rate", 5e-6, above=0, maximum=1)
    num_epochs: float = option("passes over the pairs", 1.0, above=0)


Recipe = SftRecipe | DpoRecipe
