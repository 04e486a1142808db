"""Other tools beside deconvolution: wrong orders are told, and the page's lines for Lightning run."""

import importlib.util
import logging
import re
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import ndlib

PAGE = "book/beside-other-tools.md"


def network(**options):
    torch.manual_seed(0)
    plain = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 2)]
    return ndlib.convert(nn.Sequential(*plain), block_size=4, linear_block_size=16, **options)[0]


def pictures(seed=0):
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (256,), generator=draw)
    template = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(9))
    return torch.randn(256, 3, 8, 8, generator=draw) + labels.view(-1, 1, 1, 1) * template, labels


def test_pruning_before_folding_is_told():
    model = network()
    model(pictures()[0])
    model.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ndlib.to_plain(model)
    prune.l1_unstructured(model[2], "weight", 0.9)
    message = r"DeconvConv2d\(8.*: 90% of its weights w are zero, and 0% of the plain layer's.*after to_plain"
    with pytest.warns(UserWarning, match=message):
        ndlib.to_plain(model)
    prune.remove(model[2], "weight")
    with pytest.warns(UserWarning, match=message):
        ndlib.to_plain(model)


def test_folding_averaged_weights_with_other_statistics_is_told():
    model = network()
    average = torch.optim.swa_utils.AveragedModel(model)
    for seed in range(3):
        model(pictures(seed)[0])
        average.update_parameters(model)
    average.eval()
    with pytest.warns(UserWarning, match=r"weights were averaged.*call ndlib.update_statistics\(model, loader\) first"):
        ndlib.to_plain(average)
    ndlib.update_statistics(average, [pictures()[0]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = ndlib.to_plain(average)
    torch.testing.assert_close(plain(pictures()[0]), average(pictures()[0]), rtol=1e-4, atol=1e-4)
    average.update_parameters(model)
    with pytest.warns(UserWarning, match="averaged"):
        ndlib.to_plain(average)


class Adapter(nn.Module):
    """As those of peft and loralib: it says whether it is merged."""

    def __init__(self, layer):
        super().__init__()
        self.base_layer, self.merged = layer, False
        self.a, self.b = nn.Parameter(torch.randn(2, 128)), nn.Parameter(torch.randn(2, 2))

    def forward(self, x):
        return self.base_layer(x) if self.merged else self.base_layer(x) + x @ self.a.T @ self.b.T

    def merge(self):
        self.base_layer.weight.data += self.b @ self.a
        self.merged = True


def test_an_adapter_merged_before_folding_is_refused_and_after_it_is_right():
    model = network()
    x = pictures()[0]
    model(x)
    model.eval()[5] = Adapter(model[5])
    wanted = model(x)
    plain = ndlib.to_plain(model)
    torch.testing.assert_close(plain(x), wanted, rtol=1e-4, atol=1e-4)
    plain[5].merge()
    torch.testing.assert_close(plain(x), wanted, rtol=1e-4, atol=1e-4)
    model[5].merge()
    with pytest.raises(ValueError, match=r"the adapter 5 is merged into weights that meet .*unmerge it"):
        ndlib.to_plain(model)


def code_blocks(heading):
    """The code of a section of the page."""
    text = (Path(__file__).parents[1] / PAGE).read_text()
    section = text.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"```{code-block} python\n(.*?)```", section, re.S)


has_lightning = importlib.util.find_spec("lightning") is not None
needs_lightning = pytest.mark.skipif(not has_lightning, reason="lightning is not installed, nor needed")


@needs_lightning
@pytest.mark.filterwarnings("ignore")
def test_the_lines_for_lightning_measure_again_and_freeze():
    import lightning as L
    from lightning.pytorch.callbacks import StochasticWeightAveraging

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    names = {}
    for block in code_blocks("Lightning"):
        exec(block.split("trainer =")[0], names)

    class Module(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.backbone, self.head = network(running="covariance"), nn.Linear(2, 2)

        def forward(self, x):
            return self.head(self.backbone(x))

        def training_step(self, batch, _):
            return nn.functional.cross_entropy(self(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], 0.1)

    x, labels = pictures()
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, labels), 32)

    def fitted(*callbacks):
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        trainer = L.Trainer(
            max_epochs=4, enable_model_summary=False, accelerator="cpu", callbacks=list(callbacks), **quiet
        )
        module = Module()
        trainer.fit(module, loader)
        return module.eval()

    module = fitted(StochasticWeightAveraging(0.1, swa_epoch_start=1), names["UpdateStatistics"]())
    found = module(x)
    ndlib.update_statistics(module, loader)
    torch.testing.assert_close(module(x), found, rtol=1e-4, atol=1e-4)
    module = fitted(StochasticWeightAveraging(0.1, swa_epoch_start=1))
    stale = module(x)
    ndlib.update_statistics(module, loader)
    assert (module(x) - stale).norm() > 0.01 * stale.norm()

    class UntilTheThird(names["Freeze"]):
        until = 2

    module = fitted(UntilTheThird())
    assert module.backbone[0].num_batches_tracked == 4 * len(loader)  # steps are counted
    assert module.backbone[0].running_weight == pytest.approx(1 - 0.9 ** (2 * len(loader)), rel=1e-4)
