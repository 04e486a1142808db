"""Running averages in the user's hands, and over the life of a layer."""

import copy
import io
import pickle

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from torch import nn

import ndlib
from ndlib import DeconvConv2d, DeconvLinear, to_plain
from ndlib.averages import freeze_statistics, keep_statistics, synchronise_statistics, update_statistics

pytestmark = pytest.mark.filterwarnings("ignore:.*rows for a covariance")


def batch(seed, n=16):
    """Four channels, of another mean and scale for every seed."""
    x = torch.randn(n, 4, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x * (1 + seed % 5) + seed % 7


def network(**options):
    torch.manual_seed(0)
    net = [DeconvConv2d(4, 6, 3, **options), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.5), nn.Flatten()]
    return nn.Sequential(*net, DeconvLinear(216, 3, block_size=8, **options)).double()


def test_updated_statistics_are_the_mean_over_the_batches():
    model = network(running="covariance")
    for seed in range(5):
        model(batch(seed))
    update_statistics(model, [(batch(seed), "label") for seed in (1, 2, 3)])
    layer = model[0]
    means, covs = zip(*(layer.measure(batch(seed)) for seed in (1, 2, 3)), strict=True)
    torch.testing.assert_close(layer.running_mean, torch.stack(means).mean(0).flatten())
    torch.testing.assert_close(layer.running_cov, torch.stack(covs).mean(0).squeeze())
    assert layer.running_weight == 1
    assert layer.momentum == 0.1 and model[1].momentum == 0.1
    assert all(m.training for m in model.modules())


def test_an_update_measures_frozen_layers_and_keeps_the_step_count_and_the_freeze():
    model = network()
    for seed in range(3):
        model(batch(seed))
    freeze_statistics(model)
    update_statistics(model, [batch(8)])
    layer = model[0]
    torch.testing.assert_close(layer.running_mean, layer.measure(batch(8))[0].flatten())
    assert layer.num_batches_tracked == 3 and layer.count.frozen
    layer.load_state_dict(copy.deepcopy(layer.state_dict()))
    assert layer.count.frozen and layer.count.taken == 3


def test_updated_statistics_of_roots_forget_the_start():
    model = network()
    update_statistics(model, [batch(1)])
    _, root = model[0].batch_whitening(batch(1))
    torch.testing.assert_close(model[0].running_deconv, root[0])


def test_averaged_weights_evaluate_rightly_after_an_update():
    """A moving average of weights with statistics of other weights: off by more than half of the output, then not."""
    model = network(running="covariance")
    average = torch.optim.swa_utils.AveragedModel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for step in range(30):
        optimizer.zero_grad()
        model(batch(step % 3)).square().mean().backward()
        optimizer.step()
        average.update_parameters(model)
    fresh = copy.deepcopy(average.module)
    update_statistics(average, [batch(seed) for seed in range(3)])
    update_statistics(fresh, [batch(seed) for seed in range(3)])
    x = batch(1)
    torch.testing.assert_close(average.eval()(x), fresh.eval()(x))
    plain = to_plain(average.module.eval())
    torch.testing.assert_close(plain(x), average(x))


def test_no_batches_and_no_layers_are_refused_and_modes_restored():
    model = network().eval()
    with pytest.raises(ValueError, match="no batches"):
        update_statistics(model, [])
    assert not any(m.training for m in model.modules())
    for act in (freeze_statistics, synchronise_statistics, lambda net: update_statistics(net, [batch(0)])):
        with pytest.raises(ValueError, match="Linear has no deconvolution layer"):
            act(nn.Linear(3, 3))


def test_an_error_on_the_way_restores_options_and_modes():
    model = network()
    with pytest.raises(ValueError, match="must have shape"):
        update_statistics(model, [torch.zeros(2, 5, 8, 8)])
    assert model[0].momentum == 0.1 and all(m.training for m in model.modules()) and model[1].momentum == 0.1


def test_frozen_statistics_serve_in_training_and_do_not_move():
    model = network()
    model(batch(1))
    before = copy.deepcopy(model.state_dict())
    freeze_statistics(model)
    layer = model[0].train()
    torch.testing.assert_close(layer(batch(2)), copy.deepcopy(layer).eval()(batch(2)))
    for name in ("running_mean", "running_deconv"):
        assert torch.equal(getattr(layer, name), before[f"0.{name}"])
    freeze_statistics(model, False)
    layer(batch(2))
    assert not torch.equal(layer.running_mean, before["0.running_mean"])


def test_kept_statistics_whiten_with_the_batch_and_do_not_move():
    model = network()[:1]
    model(batch(1))
    wanted = copy.deepcopy(model)(batch(2))
    before = copy.deepcopy(model.state_dict())
    with keep_statistics(model):
        torch.testing.assert_close(model(batch(2)), wanted)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items() if "tracked" not in k)
    model(batch(2))
    assert not torch.equal(model[0].running_mean, before["0.running_mean"])


def test_both_kinds_of_batches_enter_the_averages_whatever_the_interval():
    """Two forward passes a step, as of a discriminator; every second pass alone is of one kind."""
    for every in (2, 3, 4):
        layer = DeconvConv2d(4, 4, 1, update_every=every).double()
        seen = set()
        layer.register_forward_hook(lambda *_: None)
        for step in range(100 + 8 * every**2):
            before = layer.running_mean.clone()
            layer(batch(0) + (5 if step % 2 else -5))
            if step >= 100 and not torch.equal(before, layer.running_mean):
                seen.add(step % 2)
        assert seen == {0, 1}, every


def test_evaluation_with_gradients_survives_a_training_step():
    for running in ("root", "covariance"):
        layer = DeconvConv2d(4, 4, 3, running=running).double()
        layer(batch(1))
        y = layer.eval()(batch(2)).sum()
        layer.train()(batch(3))
        y.backward()
        assert layer.weight.grad.isfinite().all()


def test_states_of_another_kind_of_average_are_refused():
    roots, covariances = DeconvConv2d(4, 4, 3), DeconvConv2d(4, 4, 3, running="covariance")
    with pytest.raises(RuntimeError, match="averaged root, and this layer averages covariances"):
        covariances.load_state_dict(roots.state_dict(), strict=False)
    with pytest.raises(RuntimeError, match="averaged covariance, and this layer averages roots"):
        roots.load_state_dict(covariances.state_dict(), strict=False)


def test_states_of_other_options_are_refused_or_warned_about(tmp_path):
    file = tmp_path / "state.pt"
    torch.save(nn.Sequential(DeconvConv2d(128, 4, 3, grouping="contiguous", eps=0.1)).state_dict(), file)
    state = torch.load(file)
    with pytest.raises(RuntimeError, match=r"0 was saved with grouping='contiguous'; make the layer so"):
        nn.Sequential(DeconvConv2d(128, 4, 3, eps=0.1)).load_state_dict(state)
    with pytest.warns(UserWarning, match=r"0 was saved with eps=0.1, not 1e-05; training goes on with the latter"):
        nn.Sequential(DeconvConv2d(128, 4, 3, grouping="contiguous")).load_state_dict(state)


def test_reset_parameters_makes_a_new_layer_even_of_unset_memory():
    with torch.device("meta"):
        empty = DeconvConv2d(4, 4, 3, running="covariance", freeze_after=2)
    empty.to_empty(device="cpu")
    for buffer in empty.buffers():
        buffer.fill_(7)
    empty.reset_parameters()
    new = DeconvConv2d(4, 4, 3, running="covariance", freeze_after=2)
    new.load_state_dict(empty.state_dict())
    x = batch(3).float()
    torch.testing.assert_close(empty(x), new(x))
    trained = DeconvConv2d(4, 4, 3, freeze_after=2)
    for seed in range(4):
        trained(batch(seed).float())
    trained.reset_parameters()
    assert trained.num_batches_tracked == 0 and not trained.running_mean.any()
    trained(x)
    assert trained.running_mean.any()


class LifeOfALayer(RuleBasedStateMachine):
    """Whatever happens to a layer, it evaluates as a fresh one does that was given its state."""

    def __init__(self):
        super().__init__()
        self.layer, self.close = None, {}

    @precondition(lambda self: self.layer is None)
    @rule(
        running=st.sampled_from(["root", "covariance"]),
        every=st.sampled_from([1, 2]),
        last=st.sampled_from([None, 3]),
        linear=st.booleans(),
    )
    def make(self, running, every, last, linear):
        self.options = {"running": running, "update_every": every, "freeze_after": last}
        torch.manual_seed(0)
        self.linear = linear
        self.layer = self.new()

    def new(self):
        return (DeconvLinear(4, 3, **self.options) if self.linear else DeconvConv2d(4, 3, 3, **self.options)).double()

    def input(self, seed):
        x = batch(seed)
        return x.movedim(1, -1).reshape(-1, 4) if self.linear else x

    @precondition(lambda self: self.layer)
    @rule(seed=st.integers(0, 9), steps=st.integers(1, 4))
    def train(self, seed, steps):
        self.layer.train()
        for step in range(steps):
            self.layer(self.input(seed + step)).sum().backward()

    @precondition(lambda self: self.layer)
    @rule(how=st.sampled_from(["copy", "pickle", "save", "inference copy"]))
    def copy(self, how):
        if how == "copy":
            self.layer.zero_grad()
            self.layer = copy.deepcopy(self.layer)
        elif how == "pickle":
            self.layer = pickle.loads(pickle.dumps(self.layer))
        elif how == "save":
            stream = io.BytesIO()
            torch.save(self.layer.state_dict(), stream)
            stream.seek(0)
            self.layer = self.new()
            self.layer.load_state_dict(torch.load(stream))
        else:
            with torch.inference_mode():
                other = copy.deepcopy(self.layer)
                other.eval()(self.input(0))

    @precondition(lambda self: self.layer)
    @rule(how=st.sampled_from(["copy_", "data", "lerp", "new tensor"]), seed=st.integers(0, 9))
    def write_averages(self, how, seed):
        other = self.new()
        other(self.input(seed))
        for name, value in other.named_buffers():
            if not name.startswith("running_") or (
                name == "running_deconv" and self.options["running"] == "covariance"
            ):
                continue
            mine = self.layer.get_buffer(name)
            with torch.no_grad():
                if how == "copy_":
                    mine.copy_(value)
                elif how == "data":
                    mine.data.copy_(value)
                elif how == "lerp":
                    mine.lerp_(value, 0.5)
                else:
                    setattr(self.layer, name, value.clone())

    @precondition(lambda self: self.layer)
    @rule(seed=st.integers(0, 9))
    def update(self, seed):
        update_statistics(self.layer, [self.input(seed), self.input(seed + 1)])

    @precondition(lambda self: self.layer)
    @rule(frozen=st.booleans())
    def freeze(self, frozen):
        freeze_statistics(self.layer, frozen)

    @precondition(lambda self: self.layer)
    @rule()
    def to_single_and_back(self):
        self.layer.float().double()
        self.close = {"rtol": 1e-4, "atol": 1e-4}  # the root was rounded, not taken of the rounded covariance

    @invariant()
    def evaluates_as_a_fresh_one(self):
        if self.layer is None:
            return
        fresh = self.new()
        fresh.load_state_dict(self.layer.state_dict())
        x, mode = self.input(5), self.layer.training
        wanted = fresh.eval()(x)
        torch.testing.assert_close(to_plain(copy.deepcopy(self.layer).eval())(x), wanted, **self.close)
        torch.testing.assert_close(self.layer.eval()(x), wanted, **self.close)
        self.layer.train(mode)
        if self.layer.training and self.layer.count.frozen:
            torch.testing.assert_close(self.layer(x), wanted, **self.close)


def test_values_of_the_covariance_are_copied_in_evaluation_alone():
    layer = DeconvConv2d(4, 4, 3, running="covariance", update_every=2).double()
    layer.restart(102)
    layer(batch(1))
    assert layer.root_of is not None and layer.root_of.values is None
    layer.eval()(batch(2))
    assert layer.root_of.values is not None


LifeOfALayer.TestCase.settings = settings(
    max_examples=40, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck)
)
test_life_of_a_layer = LifeOfALayer.TestCase


def test_the_facade_has_them():
    assert ndlib.update_statistics is update_statistics and ndlib.freeze_statistics is freeze_statistics
