"""Whether an installed ndlib works: run by the Python of a clean environment, away from the checkout."""

from importlib.metadata import version

import torch
from torch import nn

import ndlib
from ndlib.bookwork import widgets
from ndlib.evidence import published

assert "site-packages" in ndlib.__file__, ndlib.__file__
assert ndlib.__version__ == version("network-deconvolution")
net, _ = ndlib.convert(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3)))
x = torch.randn(8, 3, 16, 16)
net(x).sum().backward()
torch.testing.assert_close(ndlib.to_plain(net.eval())(x), net(x), rtol=1e-3, atol=1e-3)
assert published.all_results()  # the data came along
assert "<svg" in widgets.NewtonSchulz().page_html()
print(f"ndlib {ndlib.__version__}, torch {torch.__version__}, ipywidgets {version('ipywidgets')}: works")
