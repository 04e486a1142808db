"""The way of the layers from a batch to its samples and back, beside the definition."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ndlib._core import moments, patches
from ndlib._core.moments import sample_moments
from ndlib._core.patches import Patches, count_rows, cut, paste, patch_samples
from ndlib.functional import fold_weights, patch_moments


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@st.composite
def batches(draw):
    """A batch with up to three dimensions, and patches that fit: overlapping or not, padded unevenly, in blocks."""
    dims = draw(st.integers(0, 3))

    def each(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(dims))

    groups, blocks = draw(st.sampled_from([(1, 1), (1, 2), (1, 3), (2, 1)]))
    grouping = draw(st.sampled_from(["interleaved", "contiguous"]))
    pads = tuple(draw(st.integers(0, 2)) for _ in range(2 * dims))
    chosen = Patches(each(1, 3), each(1, 4), pads, each(1, 2), groups, blocks, grouping)
    channels = 1 if (groups, blocks) == (1, 1) and draw(st.booleans()) else 6
    x = random(draw(st.integers(2, 4)), channels, *range(5, 5 + dims))
    if dims == 2 and draw(st.booleans()):
        x = x.to(memory_format=torch.channels_last)
    return x, chosen


@settings(max_examples=150, deadline=None)
@given(batch=batches(), by_index=st.booleans())
def test_cutting_is_the_definition_and_pasting_its_adjoint(batch, by_index):
    x, chosen = batch
    with pytest.MonkeyPatch.context() as patch:
        if not by_index:  # as on a GPU
            patch.setattr(patches, "_order", lambda *columns: None)
            patch.setattr(patches, "_order_back", lambda *columns: None)
        samples = cut(x, chosen)
        torch.testing.assert_close(samples.permute(1, 2, 0, 3), patch_samples(x, chosen), rtol=0, atol=0)
        weights, pasted = random(*samples.shape, seed=1), torch.full_like(x, torch.nan)
        paste(weights, pasted, chosen)
    torch.testing.assert_close((samples * weights).sum(), (x * pasted).sum())
    x = x.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(patch_samples(x, chosen), x, weights.permute(1, 2, 0, 3))
    torch.testing.assert_close(pasted, wanted)


@settings(max_examples=60, deadline=None)
@given(batch=batches(), pooled=st.booleans(), in_cache=st.sampled_from([1, 500, 10**9]))
def test_moments_in_pieces_are_those_of_all_samples(batch, pooled, in_cache):
    x, chosen = batch
    x = (x + torch.arange(len(x)).view(-1, *[1] * (x.dim() - 1))).requires_grad_()  # no two pieces with one mean
    samples = patch_samples(x, chosen)
    if pooled:
        samples = samples.flatten(1, 2).unsqueeze(1)
    mean = samples.mean(2)
    centred = samples - mean.unsqueeze(2)
    wanted = mean, centred.mT @ centred / samples.shape[2]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(moments, "IN_CACHE", in_cache)
        found = sample_moments(x, chosen, count_rows(x, chosen), pooled=pooled)
    torch.testing.assert_close(found, wanted)
    towards = [random(*t.shape, seed=2) for t in wanted]
    torch.testing.assert_close(torch.autograd.grad(found, x, towards), torch.autograd.grad(wanted, x, towards))


@pytest.mark.parametrize("kernel", [(), (1, 1), (3, 2)])
@pytest.mark.parametrize("grouping", ["interleaved", "contiguous"])
@pytest.mark.parametrize(("groups", "blocks", "means"), [(1, 1, 1), (1, 3, 1), (1, 3, 3), (2, 1, 1)])
def test_gradient_of_the_folded_weights(kernel, grouping, groups, blocks, means):
    weight = random(4, 6, *kernel).requires_grad_()
    n = weight[0].numel() // blocks
    mean, root = (random(groups, rows, n, seed=3).requires_grad_() for rows in (means, n))

    def folded(weight, mean, root):
        return fold_weights(weight, None, mean, root, n_blocks=blocks, grouping=grouping)

    assert torch.autograd.gradcheck(folded, (weight, mean, root))


def test_a_layer_keeps_its_batch_and_no_patches():
    x = random(8, 4, 9, 9).float().requires_grad_()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        patch_moments(x, 3)
    assert {t.data_ptr() for t in kept if t.numel() >= x.numel()} == {x.data_ptr()}
