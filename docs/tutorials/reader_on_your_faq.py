# %% [markdown]
# # Train a reader on your FAQ
#
# A reader is a small model that finds the answer to a question. A language model teaches it once; then it works
# without one.
#
# The settings here are short, so that this page is built in a minute or two on a CPU. The last section says what to
# change.
#
# ## The pairs
#
# Questions with their answers, in a file: CSV with a header, JSONL, or text with `Q:` and `A:`. Several questions may
# have one answer. We write a part of the bundled pairs as the CSV file that you would have.

# %%
import csv
import json
import logging
import tempfile
from pathlib import Path

import cube3d

logging.disable(logging.WARNING)
folder = Path(tempfile.mkdtemp())

pairs = cube3d.read_pairs(["bundled"])
ours = [pair for pair in pairs if pair.domain in ("nlp", "ai_ml")]
with (folder / "faq.csv").open("w", newline="") as file:
    table = csv.writer(file)
    table.writerow(["question", "answer"])
    table.writerows([pair.question, pair.answer] for pair in ours)

faq = cube3d.read_pairs([str(folder / "faq.csv")])
print(len(faq), "pairs,", len({pair.answer for pair in faq}), "answers")
print("Q:", faq[0].question)
print("A:", faq[0].answer)

# %% [markdown]
# ## Training
#
# `fit` splits the pairs so that no answer is in two parts, asks the teacher (MiniLM) for its vectors, trains the
# reader on plain texts and then on the pairs, and checks itself: every parameter must have got a gradient and moved.
# Everything goes into one folder.

# %%
settings = cube3d.load_settings(
    None,
    ["texts.sources=[pairs, 'docs:json']", "texts.count=400", "distillation.epochs=3", "training.epochs=8"],
)
run = cube3d.fit(folder / "run", settings, faq)

# %% [markdown]
# The same on the command line:
#
# ```sh
# cube3d train --out runs/faq 'data.pairs=[faq.csv]' training.epochs=8
# ```
#
# ## Asking
#
# `Reader` loads the run. No language model is loaded, and the answers' vectors are there already.

# %%
reader = cube3d.Reader(run)
for question in ["What is overfitting?", "What is a word embedding?"]:
    print(question)
    for answer in reader.answer([question], count=2)[0]:
        print(f"  {answer.score:.2f}  {answer.text[:90]}")

# %% [markdown]
# ## Is it good enough?
#
# We ask the questions that training did not see, and look where the right answer stands among all answers of the
# file.

# %%
known = {pair.question: pair.answer for pair in faq}
parts = [json.loads(line) for line in (run.folder / "pairs.jsonl").read_text().splitlines()]
held_out = [record["question"] for record in parts if record["part"] == "test"]
count = len({pair.answer for pair in faq})
ranks = []
for question, answers in zip(held_out, reader.answer(held_out, count=count), strict=True):
    ranks.append(1 + [answer.text for answer in answers].index(known[question]))
print(f"{len(ranks)} questions, {count} answers")
print(f"right answer first: {sum(rank == 1 for rank in ranks) / len(ranks):.0%}, mean reciprocal rank: ", end="")
print(f"{sum(1 / rank for rank in ranks) / len(ranks):.2f}")

# %% [markdown]
# `cube3d evaluate runs/faq` does this properly: with the teacher, a bag of words, a transformer's layer and others
# beside the reader, with intervals, and with a report as a web page. Look there before you decide. On the bundled
# pairs the teacher alone is better and the reader some seventy times as fast: [results](../results.md).
#
# ## With your own file
#
# - Leave out the overrides: by default a reader learns from 4,000 texts in three epochs and from the pairs in up to
#   30.
# - Give it texts of your field, many of them: `texts.sources=[pairs, handbook.md, notes.jsonl]`, `texts.count=60000`.
#   More texts help most.
# - `reader.storage=int8` makes the model a quarter of the size; nothing measurable is lost.
# - `cube3d export runs/faq model/` writes it for sentence-transformers, `reader.onnx` in the place of `model/` for
#   onnxruntime.
#
# Next: [several teachers](several_teachers.py), [your data](../data.md).
