"""The optimisers against torch's own on matrices, and on whole networks."""

import copy

import pytest
import torch
from torch import nn

from ndlib.experiments import models
from ndlib.experiments.optimizers import OPTIMIZERS, optimizers

needs_muon = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch.optim.Muon came with torch 2.9")
EACH = [pytest.param(name, marks=needs_muon if name == "muon" else []) for name in OPTIMIZERS]


def step(model, updates, seed):
    """One step on gradients that are noise."""
    generator = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        p.grad = torch.randn(p.shape, generator=generator) if p.requires_grad else None
    for update in updates:
        update.step()


@needs_muon
def test_muon_updates_kernels_as_matrices():
    """Two steps, so that the momentum counts, against torch's Muon and AdamW on separate parameters."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1, bias=False), nn.Flatten(), nn.Linear(4, 2))
    kernels = [nn.Parameter(w.detach().clone().reshape(len(w), -1)) for w in (model[0].weight, model[1].weight)]
    others = [nn.Parameter(p.detach().clone()) for p in (model[0].bias, model[3].weight, model[3].bias)]
    ours = optimizers(model, "muon", lr=0.01, momentum=0.8, weight_decay=0.1)
    muon = torch.optim.Muon(kernels, lr=0.01, momentum=0.8, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(others, lr=0.01, betas=(0.8, 0.999), weight_decay=0.1)
    for seed in (1, 2):
        step(model, ours, seed)
        for matrix, layer in zip(kernels, (model[0], model[1]), strict=True):
            matrix.grad = layer.weight.grad.reshape(matrix.shape).clone()
        for mine, theirs in zip(others, (model[0].bias, model[3].weight, model[3].bias), strict=True):
            mine.grad = theirs.grad.clone()
        muon.step()
        adamw.step()
    for matrix, layer in zip(kernels, (model[0], model[1]), strict=True):
        torch.testing.assert_close(layer.weight.reshape(matrix.shape), matrix)
    for mine, theirs in zip(others, (model[0].bias, model[3].weight, model[3].bias), strict=True):
        torch.testing.assert_close(theirs, mine)


@needs_muon
def test_muon_steps_are_nearly_orthogonal():
    """All singular values of a step lie within the factor of two that Muon's iteration leaves, whatever the gradient's
    are, and the step has the size of AdamW's."""
    torch.manual_seed(0)
    conv = nn.Conv2d(16, 24, 3, bias=False)
    before = conv.weight.detach().clone()
    conv.weight.grad = torch.randn_like(conv.weight) * torch.logspace(-1, 1, 24).view(-1, 1, 1, 1)
    (update,) = [u for u in optimizers(conv_and_bias(conv), "muon", lr=0.01) if type(u).__name__ == "KernelMuon"]
    update.step()
    change = (conv.weight.detach() - before).flatten(1)
    values = torch.linalg.svdvals(change)
    assert values.max() < 2.5 * values.min()
    assert torch.linalg.svdvals(conv.weight.grad.flatten(1)).max() > 20 * values.max()
    assert 0.1 * 0.01 < change.square().mean().sqrt() < 0.4 * 0.01


def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 9, 2))


def loss_of(model):
    x = torch.randn(8, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    return model(x).square().mean()


@needs_muon
def test_the_usual_ways_to_make_a_step_are_one():
    """Clear the gradients of each optimiser, hand over a closure, scale the loss: all as with torch's own."""
    usual, cleared, closed, scaled = (small() for _ in range(4))
    updates = {model: optimizers(model, "muon", lr=0.05) for model in (usual, cleared, closed, scaled)}
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    for _ in range(3):
        usual.zero_grad()
        loss_of(usual).backward()
        for update in updates[usual]:
            update.step()
        for update in updates[cleared]:
            update.zero_grad()
        loss_of(cleared).backward()
        for update in updates[cleared]:
            update.step()

        start = copy.deepcopy(closed)  # both parts step from here

        def closure(start=start):
            start.zero_grad()
            loss = loss_of(start)
            loss.backward()
            for p, q in zip(closed.parameters(), start.parameters(), strict=True):
                p.grad = q.grad
            return loss

        assert [update.step(closure) for update in updates[closed]] == [loss_of(start)] * 2
        scaled.zero_grad()
        scaler.scale(loss_of(scaled)).backward()
        for update in updates[scaled]:
            scaler.unscale_(update)
            scaler.step(update)
        scaler.update()
    for other in (cleared, closed, scaled):
        for p, wanted in zip(other.parameters(), usual.parameters(), strict=True):
            torch.testing.assert_close(p, wanted)


@needs_muon
def test_muon_goes_on_from_its_state_and_follows_a_schedule():
    first, second = small(), small()
    ours, theirs = (optimizers(model, "muon", lr=0.05)[0] for model in (first, second))
    loss_of(first).backward()
    ours.step()
    second.load_state_dict(first.state_dict())
    theirs.load_state_dict(copy.deepcopy(ours.state_dict()))  # which torch would share
    for model, update in ((first, ours), (second, theirs)):
        model.zero_grad()
        loss_of(model).backward()
        update.param_groups[0]["lr"] = 0.01
        before = model[0].weight.detach().clone()
        update.step()
        assert (model[0].weight - before).norm() < 0.04  # at 0.05 it would be 0.11
    torch.testing.assert_close(first[0].weight, second[0].weight)


def conv_and_bias(conv):
    return nn.ModuleList([conv, nn.BatchNorm2d(4)])


@pytest.mark.parametrize("name", EACH)
@pytest.mark.parametrize("method", ["bn", "nd", "bn-frozen"])
def test_optimizers_update_every_parameter_and_nothing_frozen(name, method):
    model = models.build("vgg-small", method=method, classes=10, width=0.25)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    buffers = {n: b.clone() for n, b in model.named_buffers()}
    step(model, optimizers(model, name, lr=0.01, weight_decay=0.1), 0)
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert changed == {n for n, p in model.named_parameters() if p.requires_grad}
    assert all(torch.equal(b, buffers[n]) for n, b in model.named_buffers())


def test_weight_decay_shrinks_every_weight_by_the_same_factor():
    """An L2 penalty in the gradient would do so under SGD alone."""
    for name in ("sgd", "adamw"):
        layer = nn.Linear(2, 2)
        before = layer.weight.detach().clone()
        layer.weight.grad, layer.bias.grad = torch.zeros(2, 2), torch.zeros(2)
        for update in optimizers(layer, name, lr=0.1, weight_decay=0.5):
            update.step()
        torch.testing.assert_close(layer.weight.detach(), (1 - 0.1 * 0.5) * before)


def test_unknown_optimizer_lists_the_known():
    with pytest.raises(ValueError, match="must be one of sgd, adamw, muon, got 'adam'"):
        optimizers(nn.Linear(1, 1), "adam", lr=0.1)


def test_muon_needs_a_recent_torch(monkeypatch):
    monkeypatch.delattr(torch.optim, "Muon", raising=False)
    with pytest.raises(ValueError, match=r"needs torch 2\.9 or newer"):
        optimizers(nn.Conv2d(1, 1, 1), "muon", lr=0.1)
