"""Statistics of photographs, their deconvolution kernels, and deblurring.

``photographs`` are always there; ``image_statistics`` sums over their pixels, ``statistics_files`` keeps the sums and
``folders`` collects them; ``kernels`` makes deconvolution kernels of them, ``fits`` and ``sparsity`` measure those;
``restore`` blurs and deblurs.
"""

__all__ = [
    "fits",
    "folders",
    "image_statistics",
    "kernels",
    "photographs",
    "restore",
    "sparsity",
    "statistics_files",
]
