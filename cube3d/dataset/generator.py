"""A local language model that says questions in other words."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cube3d.errors import UserError
from cube3d.teachers.locate import locate
from cube3d.teachers.transformer import load_options, loading

EXAMPLES = (
    ("How do I reverse a string in Python?", "What is the way to turn a string around in Python?"),
    ("Why does my program use so much memory?", "What makes my program need so much memory?"),
    ("What is a neural network?", "How would you describe a neural network?"),
    (
        "When should I use a hash table instead of a tree?",
        "In which cases is a hash table a better choice than a tree?",
    ),
)
"""Shown before each question. A small model that is told what to do answers the question; one that is shown goes on."""

NEW_TOKENS = 60


class Rewriter:
    """A question in other words, always the same for the same question: the likeliest continuation is taken.

    Args:
        model: as a teacher is named: the embedded "smollm2", a folder, a GGUF file, a name on the hub.

    Raises:
        UserError: no such model, or none that writes text.
    """

    def __init__(self, model: str) -> None:
        self.source = locate(model)
        self.model, self.tokenizer = self._load()
        self.examples = "".join(_example(question, reworded) + "\n\n" for question, reworded in EXAMPLES)

    def _load(self) -> tuple[Any, Any]:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        with loading(self.source):
            tokenizer = AutoTokenizer.from_pretrained(self.source.folder, **load_options(self.source))
            model, report = AutoModelForCausalLM.from_pretrained(
                self.source.folder,
                dtype=torch.float32,
                use_safetensors=True,
                output_loading_info=True,
                **load_options(self.source),
            )
        if report["missing_keys"]:  # transformers would draw them at random
            missing = ", ".join(sorted(report["missing_keys"])[:5])
            raise UserError(f"generator {self.source}: its weights lack {missing}; name a model that writes text")
        return model.eval(), tokenizer

    @torch.inference_mode()
    def __call__(self, question: str) -> str:
        """The question in other words; "" if what the model writes is no question."""
        inputs = self.tokenizer(self.examples + _example(question, ""), return_tensors="pt")
        start = inputs["input_ids"].shape[1]
        written = self.model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            pad_token_id=self.tokenizer.eos_token_id,
            stopping_criteria=[lambda ids, scores: torch.tensor(["\n" in self._text(ids[0, start:])])],
        )
        line = self._text(written[0, start:]).split("\n")[0].strip()
        return line if line.endswith(("?", "؟", "？")) else ""

    def _text(self, tokens: Tensor) -> str:
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True)).strip()


def _example(question: str, reworded: str) -> str:
    return f"Question: {question}\nThe same question in other words: {reworded}".rstrip()
