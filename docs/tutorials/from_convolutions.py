# %% [markdown]
# # From convolutions to a cube
#
# You know `Conv3d`. A step of a lattice is a depthwise convolution, then two linear layers that all cells share,
# added to the state. We write it with torch's modules, and then as one `CubeLayer` that gives the same numbers.
#
# ## With convolutions

# %%
import time

import torch
from torch import nn

from cube_kernels import CubeLayer, Lattice, Rule

CHANNELS, FILTERS, HIDDEN, STEPS = 16, 2, 64, 16


class Convolutions(nn.Module):
    def __init__(self):
        super().__init__()
        # Channel c sees its neighborhood through FILTERS filters, one output each.
        self.see = nn.Conv3d(CHANNELS, FILTERS * CHANNELS, 3, padding=1, groups=CHANNELS, bias=False)
        self.hidden = nn.Linear(CHANNELS + FILTERS * CHANNELS, HIDDEN)
        self.head = nn.Linear(HIDDEN, CHANNELS)

    def forward(self, x):  # [B, D, H, W, C]
        for _ in range(STEPS):
            seen = self.see(x.movedim(-1, 1)).movedim(1, -1)  # ordered by channel, then by filter
            seen = seen.unflatten(-1, (CHANNELS, FILTERS)).transpose(-1, -2).flatten(-2)
            x = x + self.head(torch.relu(self.hidden(torch.cat([x, seen], dim=-1))))
        return x


torch.manual_seed(0)
convolutions = Convolutions()
nn.init.normal_(convolutions.head.weight, std=0.02)

# %% [markdown]
# ## As a cube
#
# The same in other words: neighborhood "moore" of radius 1 is the 3×3×3 kernel, walls are zero padding.

# %%
lattice = Lattice((12, 12, 12), CHANNELS, neighborhood="moore", boundary="walls")
rule = Rule(perception="depthwise", filters=FILTERS, hidden=HIDDEN, activation="relu", update="residual")
cube = CubeLayer(lattice, rule, steps=STEPS)

# %% [markdown]
# We copy the weights. A filter of the cube has one weight for each of `lattice.offsets`; a kernel of `Conv3d` has
# them in a box, whose middle is the cell itself.

# %%
d, h, w = (torch.tensor(lattice.offsets) + 1).unbind(-1)
with torch.no_grad():
    kernels = convolutions.see.weight.unflatten(0, (CHANNELS, FILTERS))[:, :, 0, d, h, w]  # [C, P, offsets]
    cube.filters.copy_(kernels.permute(1, 2, 0))
    cube.hidden_weight.copy_(convolutions.hidden.weight)
    cube.hidden_bias.copy_(convolutions.hidden.bias)
    cube.head_weight.copy_(convolutions.head.weight)
    cube.head_bias.copy_(convolutions.head.bias)

x = torch.randn(2, 12, 12, 12, CHANNELS)
a, b = convolutions(x), cube(x)
print("largest difference:", (a - b).abs().max().item())
torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)

# %% [markdown]
# The gradients are the same, too.

# %%
a.square().mean().backward()
b.square().mean().backward()
torch.testing.assert_close(convolutions.hidden.weight.grad, cube.hidden_weight.grad, rtol=1e-3, atol=1e-5)

# %% [markdown]
# ## What changes
#
# **Memory.** Convolutions keep every intermediate value of every step for the backward pass; we count the bytes that
# autograd saves. The cube keeps some of the states.


# %%
def saved_bytes(module):
    sizes = {}

    def note(tensor):
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        result = module(x)
    return sum(sizes.values()), result


for name, module in [("convolutions", convolutions), ("cube", cube)]:
    size, _ = saved_bytes(module)
    print(f"{name}: {size / 2**20:.1f} MiB saved for the backward pass")

# %% [markdown]
# **Time.** One call each, forward and backward, on the machine that built this page. For measurements with peers,
# medians and losses, see [performance](../performance.md).

# %%
for name, module in [("convolutions", convolutions), ("cube", cube)]:
    start = time.perf_counter()
    module(x).square().mean().backward()
    print(f"{name}: {1000 * (time.perf_counter() - start):.0f} ms")

# %% [markdown]
# **Options** that take work with convolutions are words here: `boundary="reflecting"`, `update="gated"`, a fire rate,
# cells that may not be written. And `tolerance` stops each sample when it has settled:

# %%
calm = CubeLayer(lattice, Rule(filters=1, hidden=16, update="gated"), steps=200)
with torch.no_grad():
    result = calm(x, tolerance=1e-2)
print("steps that each sample took:", result.steps.tolist())
