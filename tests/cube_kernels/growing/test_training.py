"""The kit in a plain loop, in Lightning and under transformers' Trainer; and its small parts."""

import pytest
import torch
from torch.utils.data import DataLoader

from cube_kernels import CubeLayer, Lattice, Rule
from cube_kernels.growing import (
    SamplePool,
    ball,
    normalize_gradients,
    overflow_loss,
    random_seed,
    random_steps,
    seed_cell,
)
from cube_kernels.rules import growing_nca

SHAPE = (1, 7, 8)
TARGET = torch.zeros(*SHAPE, 4)
TARGET[:, 2:5, 2:6] = torch.tensor([0.8, 0.2, 0.1, 1.0])


def distance(x):
    return (x[..., :4] - TARGET).square().mean((1, 2, 3, 4))


class Growing(torch.nn.Module):
    """All that a trainer drives: its forward pass takes a batch that it does not look at."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = growing_nca(SHAPE, channels=6, hidden=16)
        self.draws = torch.Generator().manual_seed(0)
        self.pool = SamplePool(seed_cell(self.layer.lattice), 8, self.draws)

    def forward(self, number=None):
        places, x = self.pool.sample(4, distance, ball, damaged=1)
        x = self.layer(x, steps=random_steps(8, 12, self.draws), seed=random_seed(self.draws))
        self.pool.update(places, x)
        return {"loss": (distance(x) + 0.01 * overflow_loss(x)).mean()}

    def grown(self):
        """The loss of four samples on firing patterns that training did not see."""
        with torch.no_grad():
            x = seed_cell(self.layer.lattice).expand(4, *SHAPE, 6)
            return distance(self.layer(x, steps=10, seed=123)).mean().item()


def plain(model, tmp_path):
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(300):
        optimizer.zero_grad()
        model()["loss"].backward()
        normalize_gradients(model.parameters())
        optimizer.step()


def lightning(model, tmp_path):
    lightning = pytest.importorskip("lightning", reason="lightning is not installed")

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = model

        def training_step(self, batch, index):
            return self.model()["loss"]

        def on_before_optimizer_step(self, optimizer):
            normalize_gradients(self.parameters())

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=3e-3)

    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(Module(), DataLoader(range(300), batch_size=None))


def transformers(model, tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")

    class Normalize(transformers.TrainerCallback):
        def on_pre_optimizer_step(self, *_, model, **__):
            normalize_gradients(model.parameters())

    settings = transformers.TrainingArguments(
        output_dir=tmp_path,
        max_steps=300,
        learning_rate=3e-3,
        max_grad_norm=0,
        lr_scheduler_type="constant",
        per_device_train_batch_size=1,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
    )
    data = [{"number": torch.tensor(0)}] * 300
    transformers.Trainer(model=model, args=settings, train_dataset=data, callbacks=[Normalize()]).train()


@pytest.mark.parametrize("train", [plain, lightning, transformers])
def test_it_trains(train, tmp_path):
    model = Growing()
    before = model.grown()
    train(model, tmp_path)
    assert model.grown() < 0.7 * before


# Parts


def test_a_seed_is_one_cell_in_the_middle():
    state = seed_cell(Lattice((4, 5, 6), 7), first=2)
    assert state.nonzero().tolist() == [[2, 2, 3, channel] for channel in range(2, 7)]
    assert state.sum() == 5
    with pytest.raises(ValueError, match="first is 7, but the lattice has 7 channels"):
        seed_cell(Lattice((4, 5, 6), 7), first=7)


def test_steps_are_of_both_ends_and_between():
    draws = torch.Generator().manual_seed(0)
    assert {random_steps(3, 6, draws) for _ in range(100)} == {3, 4, 5, 6}
    assert random_steps(2, 2, draws) == 2
    with pytest.raises(ValueError, match="most is 5; it must be at least 6"):
        random_steps(6, 5, draws)
    with pytest.raises(TypeError, match="the generator is None; it takes a Generator"):
        random_steps(6, 7, None)


def test_seeds_come_from_the_generator_alone():
    before = torch.get_rng_state()
    seeds = [random_seed(torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert seeds[0] == seeds[1] != seeds[2]
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert torch.equal(torch.get_rng_state(), before)


def test_gradients_become_of_length_one_each():
    layer = CubeLayer(Lattice((2, 3, 4), 3), Rule(hidden=5), steps=2)
    layer.filters.requires_grad_(False)
    layer(torch.randn(1, 2, 3, 4, 3)).square().sum().backward()
    before = {name: parameter.grad.clone() for name, parameter in layer.named_parameters() if parameter.requires_grad}
    layer.head_bias.grad.zero_()
    normalize_gradients(layer.parameters())
    assert layer.filters.grad is None
    assert torch.equal(layer.head_bias.grad, torch.zeros(3)), "a gradient of zero has no direction"
    for name in ("hidden_weight", "hidden_bias", "head_weight"):
        assert torch.allclose(getattr(layer, name).grad, before[name] / before[name].norm(), atol=1e-6)
