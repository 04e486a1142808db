"""Networks that nobody here wrote: one of every file of timm and torchvision that has batch normalisation, and those of
segmentation_models_pytorch, MONAI and Hugging Face, all with random weights and without a download.

The packages are those of the extra ``zoo``; each is imported when its family is asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .._conversion.norms import is_batch_norm

__all__ = ["FAMILIES", "Network", "build", "catalogue"]

FAMILIES = ("torchvision", "timm", "smp", "monai", "transformers")
PACKAGES = {"smp": "segmentation_models_pytorch", "monai": "monai.networks.nets"}  # where not called as the family
SIDES = (64, 96, 128, 160, 224, 256)  # of the pictures: the smallest that a network takes


@dataclass(frozen=True)
class Network:
    """A network: the package that has it, the file there, and its name.

    >>> Network("timm", "resnet", "resnet18").name
    'resnet18'
    """

    family: str
    file: str
    name: str


def catalogue(family: str) -> Iterator[Network]:
    """The networks of a family: of timm and torchvision the smallest architecture of every file that has BN.

    >>> catalogue("timm")  # its package is imported with the first of them
    <generator object catalogue at ...>
    """
    importlib.import_module(PACKAGES.get(family, family))  # once, for all processes that examine a network of it
    if family == "timm":
        yield from _timm()
    elif family == "torchvision":
        yield from _torchvision()
    else:
        for name in {"smp": SMP, "monai": MONAI, "transformers": TRANSFORMERS}[family]:
            yield Network(family, name.split(" ")[0], name)


def _smallest(family: str, file: str, names: list[str], make: Callable[[str], nn.Module]) -> Iterator[Network]:
    """Of these names the one with the fewest parameters among those with batch normalisation."""
    sizes = []
    for name in names:
        try:
            with torch.device("meta"):
                net = make(name)
        except Exception:  # some compute in their constructor, which the meta device refuses
            continue
        if any(is_batch_norm(m) for m in net.modules()):
            sizes.append((sum(p.numel() for p in net.parameters()), name))
    if sizes:
        yield Network(family, file, min(sizes)[1])


def _timm() -> Iterator[Network]:
    import timm

    for file in timm.list_modules():
        yield from _smallest("timm", file, timm.list_models(module=file), lambda name: timm.create_model(name))


def _torchvision() -> Iterator[Network]:
    import torchvision

    files: dict[str, list[str]] = {}
    for name in torchvision.models.list_models():
        builder = torchvision.models.get_model_builder(name)
        files.setdefault(builder.__module__.removeprefix("torchvision.models."), []).append(name)
    for file, names in files.items():
        yield from _smallest("torchvision", file, names, _torchvision_net)


def _torchvision_net(name: str) -> nn.Module:
    import torchvision

    backbone = {"weights_backbone": None} if _is_dense(name) else {}
    return torchvision.models.get_model(name, weights=None, **backbone)


def _is_dense(name: str) -> bool:
    module = importlib.import_module("torchvision.models").get_model_builder(name).__module__
    return ".detection" in module or ".segmentation" in module


SMP = tuple(
    f"{decoder} {encoder}"
    for decoder in (
        *("Unet", "UnetPlusPlus", "MAnet", "Linknet", "FPN", "PSPNet", "DeepLabV3", "DeepLabV3Plus", "PAN", "UPerNet"),
        "Segformer",
    )
    for encoder in (("resnet18", "mobilenet_v2") if decoder in ("Unet", "FPN") else ("resnet18",))
)

# Arguments of MONAI's networks, for pictures of one channel.
_IN_OUT = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2}
MONAI: dict[str, dict[str, Any]] = {
    "UNet": {**_IN_OUT, "channels": (8, 16, 32), "strides": (2, 2), "num_res_units": 2, "norm": "batch"},
    "BasicUNet": {**_IN_OUT, "features": (8, 8, 16, 16, 32, 8), "norm": "batch"},
    "BasicUNetPlusPlus": {**_IN_OUT, "features": (8, 8, 16, 16, 32, 8), "norm": "batch"},
    "AttentionUnet": {**_IN_OUT, "channels": (8, 16, 32), "strides": (2, 2)},
    "SegResNet": {**_IN_OUT, "init_filters": 8, "norm": "batch"},
    "DynUNet": {
        **_IN_OUT,
        **{"kernel_size": [3, 3, 3], "strides": [1, 2, 2], "upsample_kernel_size": [2, 2], "norm_name": "batch"},
    },
    "HighResNet": {**_IN_OUT, "norm_type": "batch"},
    "VNet": _IN_OUT,
    "DenseNet121": _IN_OUT,
    "SEResNet50": {"spatial_dims": 2, "in_channels": 1, "num_classes": 2},
    "ResNet": {
        **{"block": "basic", "layers": [1, 1, 1, 1], "block_inplanes": [16, 32, 64, 128]},
        **{"spatial_dims": 2, "n_input_channels": 1, "num_classes": 2},
    },
    "EfficientNetBN": {
        **{"model_name": "efficientnet-b0", "pretrained": False},
        **{"spatial_dims": 2, "in_channels": 1, "num_classes": 2},
    },
    "FlexibleUNet": {"in_channels": 1, "out_channels": 2, "backbone": "efficientnet-b0", "spatial_dims": 2},
    "AHNet": {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "psp_block_num": 0, "upsample_mode": "bilinear"},
    "RegUNet": {
        **{"spatial_dims": 2, "in_channels": 1, "num_channel_initial": 8, "depth": 2, "out_channels": 2},
        **{"out_kernel_initializer": "zeros"},
    },
    "AutoEncoder": {**_IN_OUT, "channels": (8, 16), "strides": (2, 2), "norm": "batch"},
    "QuickNAT": {"num_class": 2, "num_channels": 1, "num_filters": 16, "drop_out": 0, "se_block": "None"},
    "HoVerNet": {"mode": "fast", "in_channels": 1, "out_classes": 2},
}

# The class of a Hugging Face network, of its configuration, and what that is given.
_SMALL = {"embedding_size": 16, "hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 1, 1]}
_RESNET = {"use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None, "d_model": 64}
_DETR = {**_RESNET, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
TRANSFORMERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ResNetForImageClassification": ("ResNetConfig", _SMALL),
    "RegNetForImageClassification": ("RegNetConfig", {**_SMALL, "groups_width": 8}),
    "MobileNetV1ForImageClassification": ("MobileNetV1Config", {"depth_multiplier": 0.25}),
    "MobileNetV2ForImageClassification": ("MobileNetV2Config", {"depth_multiplier": 0.35}),
    "MobileNetV2ForSemanticSegmentation": ("MobileNetV2Config", {"depth_multiplier": 0.35}),
    "MobileViTForImageClassification": ("MobileViTConfig", {"hidden_sizes": [32, 48, 64]}),
    "MobileViTForSemanticSegmentation": ("MobileViTConfig", {"hidden_sizes": [32, 48, 64]}),
    "MobileViTV2ForImageClassification": ("MobileViTV2Config", {"width_multiplier": 0.5}),
    "EfficientNetForImageClassification": ("EfficientNetConfig", {"hidden_dim": 1280, "width_coefficient": 1.0}),
    "LevitForImageClassification": ("LevitConfig", {"image_size": 128}),
    "SwiftFormerForImageClassification": ("SwiftFormerConfig", {}),
    "CvtForImageClassification": ("CvtConfig", {"depth": [1, 1, 2], "embed_dim": [16, 32, 48], "num_heads": [1, 2, 3]}),
    "SegformerForSemanticSegmentation": ("SegformerConfig", {"decoder_hidden_size": 64}),
    "TextNetForImageClassification": ("TextNetConfig", {}),
    "HGNetV2ForImageClassification": ("HGNetV2Config", {}),
    "UperNetForSemanticSegmentation": ("UperNetConfig", {"hidden_size": 64, "auxiliary_channels": 32}),
    "DetrForObjectDetection": ("DetrConfig", _DETR),
    "ConditionalDetrForObjectDetection": ("ConditionalDetrConfig", _DETR),
    "TableTransformerForObjectDetection": ("TableTransformerConfig", _DETR),
    "DeformableDetrForObjectDetection": ("DeformableDetrConfig", _DETR),
    "RTDetrForObjectDetection": ("RTDetrConfig", {}),
    "VitMatteForImageMatting": ("VitMatteConfig", {}),
    "UVDocModel": ("UVDocConfig", {}),
    "GLPNForDepthEstimation": ("GLPNConfig", {}),
    "SuperPointForKeypointDetection": ("SuperPointConfig", {}),
    "Wav2Vec2ConformerForCTC": (
        "Wav2Vec2ConformerConfig",
        {
            **{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
            **{"conv_dim": (16, 16), "conv_stride": (5, 2), "conv_kernel": (10, 3), "layerdrop": 0.0},
            **{"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4, "mask_time_prob": 0.0},
        },
    ),
    "PatchTSTForClassification": (
        "PatchTSTConfig",
        {"num_input_channels": 2, "d_model": 32, "num_hidden_layers": 2, "num_targets": 3, "context_length": 64},
    ),
}


def build(network: Network) -> tuple[nn.Module, Any, Any]:
    """The network, what to train it with, and what to evaluate it with: tuples or mappings of arguments.

    >>> net, example, _ = build(Network("torchvision", "alexnet", "alexnet"))
    >>> type(net).__name__, [x.shape[0] for x in example]
    ('AlexNet', [2])
    """
    torch.manual_seed(0)
    if network.family == "timm":
        return _with_pictures(importlib.import_module("timm").create_model(network.name), 3)
    if network.family == "torchvision":
        net = _torchvision_net(network.name)
        if network.file.startswith("detection"):
            return net, _detection(), ([torch.rand(3, 64, 64), torch.rand(3, 64, 64)],)
        if network.file.startswith("video"):
            x = torch.randn(2, 3, 16, 64, 64)
            return net, (x,), (x,)
        if network.file.startswith("optical_flow"):
            x = torch.randn(2, 3, 128, 128)
            return net, (x, x.flip(3)), (x, x.flip(3))
        return _with_pictures(net, 3)
    if network.family == "smp":
        decoder, encoder = network.name.split(" ")
        smp = importlib.import_module(PACKAGES["smp"])
        return _with_pictures(getattr(smp, decoder)(encoder, encoder_weights=None), 3)
    if network.family == "monai":
        kind = getattr(importlib.import_module(PACKAGES["monai"]), network.name)
        return _with_pictures(kind(**MONAI[network.name]), 1)
    return _transformer(network.name)


def _with_pictures(net: nn.Module, channels: int) -> tuple[nn.Module, Any, Any]:
    """A network with the smallest pictures that it takes."""
    for side in SIDES:
        x = torch.randn(2, channels, side, side)
        try:
            with torch.no_grad():
                net.eval()(x)
        except Exception:
            if side == SIDES[-1]:
                raise
        else:
            return net, (x,), (x,)
    raise AssertionError


def _detection() -> Any:
    pictures = [torch.rand(3, 64, 64), torch.rand(3, 64, 64)]
    target = {"boxes": torch.tensor([[8.0, 8.0, 40.0, 40.0]]), "labels": torch.tensor([1])}
    target |= {"masks": torch.ones(1, 64, 64, dtype=torch.uint8), "keypoints": torch.full((1, 17, 3), 20.0)}
    return pictures, [target, {name: value.clone() for name, value in target.items()}]


def _transformer(name: str) -> tuple[nn.Module, Any, Any]:
    transformers = importlib.import_module("transformers")
    config_name, given = TRANSFORMERS[name]
    given = dict(given)
    if ("Detr" in name and "RT" not in name) or "TableTransformer" in name or name.startswith("UperNet"):
        given["backbone_config"] = transformers.ResNetConfig(
            **_SMALL, out_features=["stage1", "stage2", "stage3", "stage4"]
        )
    net = getattr(transformers, name)(getattr(transformers, config_name)(**given))
    if name.startswith("Wav2Vec2"):
        example = {"input_values": torch.randn(2, 2000)}
        return net, example, example
    if name.startswith("PatchTST"):
        example = {"past_values": torch.randn(2, 64, 2)}
        return net, example, example
    channels = 4 if "Matte" in name else 1 if name == "Segformer" else 3
    for side in SIDES:
        example = {"pixel_values": torch.randn(2, channels, side, side)}
        try:
            with torch.no_grad():
                net.eval()(**example)
        except Exception:
            if side == SIDES[-1]:
                raise
        else:
            return net, example, example
    raise AssertionError
