# %% [markdown]
# # Your first lattice
#
# In ten minutes: make a lattice, run a rule on it, look at it, and train one.
#
# ## Cells that react
#
# A lattice says how many cells there are, how many numbers each has, who its neighbors are, and what lies beyond the
# edge. This one is a plane of 96×96 cells with two numbers each; it has no edge, because what leaves on one side
# comes in on the other.

# %%
import matplotlib.pyplot as plt
import torch

from cube_kernels import Cell, CubeLayer, Lattice, Rule, fixed_filters, rules

plane = Lattice((1, 96, 96), channels=2, neighborhood="von_neumann_2d", boundary="periodic")

# %% [markdown]
# A rule says how a cell changes. Here two chemicals react: `u` is fed, `v` lives on it, and both spread (Gray and
# Scott, 1983). We write one step; `perceive` shows each cell what its neighbors hold.


# %%
class GrayScott(Cell):
    feed, kill = 0.0545, 0.062

    def step(self, x):
        u, v = x.unbind(-1)
        spread = self.perceive(x, fixed_filters(("laplacian",), self.lattice))
        reaction = u * v * v
        change = torch.stack([self.feed * (1 - u) - reaction, reaction - (self.feed + self.kill) * v], dim=-1)
        return x + torch.tensor([0.16, 0.08]) * spread + change


# %% [markdown]
# It begins with a small square of `v` in the middle. A state has the shape `[samples, D, H, W, channels]`.

# %%
state = torch.zeros(1, 1, 96, 96, 2)
state[..., 0] = 1
state[:, :, 44:52, 44:52] = torch.tensor([0.5, 0.25])

cell, done = GrayScott(plane), 0
figure, axes = plt.subplots(1, 5, figsize=(12, 2.8))
with torch.no_grad():
    for axis, until in zip(axes, [0, 500, 1000, 2000, 4000], strict=True):
        if until > done:
            state = cell(state, steps=until - done)
            done = until
        axis.imshow(state[0, 0, :, :, 1], cmap="magma")
        axis.set_title(f"step {done}")
        axis.axis("off")
figure.tight_layout()

# %% [markdown]
# ## A rule that learns
#
# Mostly one does not write the rule but trains it. A `Rule` is a small network that every cell runs. `CubeLayer` runs
# it for some steps; it is an `nn.Module` like any other.

# %%
torch.manual_seed(0)
box = Lattice((8, 8, 8), channels=4, neighborhood="von_neumann", boundary="replicate")
layer = CubeLayer(box, Rule(filters=2, hidden=32), steps=4)
print(sum(p.numel() for p in layer.parameters()), "parameters, whatever the size of the lattice")

x = torch.randn(2, 8, 8, 8, 4)
print(layer(x).shape)

# %% [markdown]
# We teach it diffusion. `rules.heat` is the exact rule; our layer only sees examples of what goes in and what comes
# out.

# %%
heat = rules.heat((8, 8, 8), diffusivity=1.0, time_step=0.1, steps=4, channels=4)
optimizer = torch.optim.Adam(layer.parameters(), lr=1e-2)
losses = []
for _ in range(150):
    x = torch.randn(8, 8, 8, 8, 4)
    loss = (layer(x) - heat(x)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print(f"mean squared error: {losses[0]:.3f} before, {losses[-1]:.4f} after")
assert losses[-1] < losses[0] / 4

# %% [markdown]
# ## It fits every size
#
# The rule knows nothing of the size of the lattice. The same weights run on a box of 16×16×16.

# %%
larger = CubeLayer(
    Lattice((16, 16, 16), channels=4, neighborhood="von_neumann", boundary="replicate"), layer.rule, steps=4
)
larger.load_state_dict(layer.state_dict())
x = torch.randn(1, 16, 16, 16, 4)
exact = rules.heat((16, 16, 16), diffusivity=1.0, time_step=0.1, steps=4, channels=4)(x)
with torch.no_grad():
    print(f"mean squared error on a box eight times as large: {(larger(x) - exact).square().mean():.4f}")

# %% [markdown]
# Next: [from convolutions to a cube](from_convolutions.py), or [what a step is](../concepts/step.md).
