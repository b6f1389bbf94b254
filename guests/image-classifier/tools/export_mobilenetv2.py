"""Turns a MobileNetV2 of torchvision into the image classifier's model file.

    python export_mobilenetv2.py CHECKPOINT --labels LABELS --out model.safetensors
    python export_mobilenetv2.py --random SEED --classes 100 --out model.safetensors

CHECKPOINT is a state dict that torch.load reads (mobilenet_v2-*.pth); only tensors are loaded from it.
LABELS is a text file with one name in each line, or a JSON array of names. Batch norm is folded into
the convolutions. The file goes into the worker's directory of models, as `model.safetensors`.
"""

import argparse
import json
import pathlib
import sys

import torch
from torchvision.models import mobilenet_v2

from model_file import Builder


def fold(conv, norm):
    """The weights and the bias of a convolution with the batch norm behind it."""
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    weight = conv.weight * scale.reshape(-1, 1, 1, 1)
    bias = norm.bias - norm.running_mean * scale
    if conv.bias is not None:
        bias = bias + conv.bias * scale
    return weight.detach().numpy(), bias.detach().numpy()


def convolution(builder, conv, norm, relu6):
    """Adds a convolution of whichever kind."""
    weight, bias = fold(conv, norm)
    fields = {"weight": weight, "bias": bias, "relu6": relu6}
    if conv.kernel_size == (1, 1) and conv.stride == (1, 1) and conv.groups == 1:
        return builder.layer("pointwise", **fields)
    fields |= {"stride": conv.stride[0], "padding": conv.padding[0]}
    if conv.groups == 1:
        return builder.layer("conv", **fields)
    if conv.groups != conv.in_channels or conv.in_channels != conv.out_channels:
        sys.exit(f"a convolution of {conv.groups} groups: only depthwise ones are known")
    return builder.layer("depthwise", **fields)


def export(model, size=224):
    """The layers of a MobileNetV2 in evaluation, and a softmax."""
    builder = Builder(size, size)
    for block in model.features:
        before = len(builder.layers) - 1
        if not hasattr(block, "use_res_connect"):
            convolution(builder, block[0], block[1], True)
            continue
        # [expand with ReLU6,] depthwise with ReLU6, project, batch norm.
        *activated, project, norm = block.conv
        for part in activated:
            convolution(builder, part[0], part[1], True)
        convolution(builder, project, norm, False)
        if block.use_res_connect:
            builder.layer("add", **{"with": before})
    builder.layer("pool")
    dense = model.classifier[1]
    builder.layer("dense", weight=dense.weight.detach().numpy(), bias=dense.bias.detach().numpy())
    builder.layer("softmax")
    return builder


def random_model(seed, classes):
    """Random weights, and statistics of batch norm that are not those of a fresh one."""
    torch.manual_seed(seed)
    model = mobilenet_v2(weights=None, num_classes=classes)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.2)
            torch.nn.init.normal_(module.running_mean, 0, 0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


def load(path):
    """The model of a checkpoint, of whatever width and number of classes."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    classes = state["classifier.1.weight"].shape[0]
    # The first layer has 32 channels at width 1.
    width = state["features.0.0.weight"].shape[0] / 32
    model = mobilenet_v2(weights=None, num_classes=classes, width_mult=width)
    model.load_state_dict(state)
    return model.eval()


def names(path, count):
    """One label for each class."""
    if path is None:
        return [f"class {at}" for at in range(count)]
    text = pathlib.Path(path).read_text(encoding="utf-8")
    found = json.loads(text) if text.lstrip().startswith("[") else text.splitlines()
    if len(found) != count:
        sys.exit(f"{path} has {len(found)} labels, and the network has {count} classes")
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", nargs="?", help="a state dict of torchvision's mobilenet_v2")
    parser.add_argument("--random", type=int, metavar="SEED", help="random weights in place of a checkpoint")
    parser.add_argument("--classes", type=int, default=1000, help="how many, with --random")
    parser.add_argument("--labels", help="a file of names; `class N` without it")
    parser.add_argument("--out", default="model.safetensors")
    given = parser.parse_args()
    if (given.checkpoint is None) == (given.random is None):
        parser.error("a checkpoint or --random SEED")
    if given.checkpoint:
        model = load(given.checkpoint)
    else:
        model = random_model(given.random, given.classes)
    labels = names(given.labels, model.classifier[1].out_features)
    pathlib.Path(given.out).write_bytes(export(model).file(labels))
    print(f"{given.out}: {len(labels)} classes")


if __name__ == "__main__":
    main()
