"""Statistics of photographs, their deconvolution kernels, and deblurring.

``photographs`` are always there; ``reading`` opens picture files; ``image_statistics`` sums over the pixels of a
picture and ``exact_sums`` does so in whole numbers, ``statistics_files`` keeps the sums and ``folders`` collects them;
``kernels`` makes deconvolution kernels of them, ``fits`` and ``sparsity`` measure those; ``restore`` blurs and deblurs.
"""

__all__ = [
    "exact_sums",
    "fits",
    "folders",
    "image_statistics",
    "kernels",
    "photographs",
    "reading",
    "restore",
    "sparsity",
    "statistics_files",
]
