"""The network, as the list of layers that the model file holds: training and export read the same list."""

import torch
from torch import nn

SIDE = 64
MEAN = [0.5, 0.5, 0.5]
STD = [0.25, 0.25, 0.25]
STEM = 16
# Expansion, channels, blocks, stride of the first.
BLOCKS = [(1, 16, 1, 1), (3, 24, 2, 2), (4, 48, 3, 2), (4, 128, 3, 2)]
HEAD = 320


def layers(classes):
    """The layers, each with what it makes of how many channels."""
    out = [{"op": "conv", "from": 3, "to": STEM, "kernel": 3, "stride": 2, "padding": 1, "relu6": True}]
    channels = STEM
    for expansion, to, blocks, stride in BLOCKS:
        for block in range(blocks):
            s, wide, start = stride if block == 0 else 1, channels * expansion, len(out) - 1
            if expansion > 1:
                out.append({"op": "pointwise", "from": channels, "to": wide, "relu6": True})
            out.append({"op": "depthwise", "from": wide, "to": wide, "kernel": 3, "stride": s, "padding": 1, "relu6": True})
            out.append({"op": "pointwise", "from": wide, "to": to, "relu6": False})
            if s == 1 and channels == to:
                out.append({"op": "add", "with": start})
            channels = to
    out.append({"op": "pointwise", "from": channels, "to": HEAD, "relu6": True})
    out.append({"op": "pool"})
    out.append({"op": "dense", "from": HEAD, "to": classes})
    return out


class Network(nn.Module):
    """Pixels from 0 to 255 in, logits out."""

    def __init__(self, classes):
        super().__init__()
        self.layers = layers(classes)
        self.modules_ = nn.ModuleList(self.module(layer) for layer in self.layers)
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1) * 255)

    @staticmethod
    def module(layer):
        op = layer["op"]
        if op == "dense":
            return nn.Sequential(nn.Dropout(0.1), nn.Linear(layer["from"], layer["to"]))
        if op in ("add", "pool"):
            return nn.Identity()
        groups = layer["from"] if op == "depthwise" else 1
        convolution = nn.Conv2d(layer["from"], layer["to"], layer.get("kernel", 1), layer.get("stride", 1), layer.get("padding", 0), groups=groups, bias=False)
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out")
        return nn.Sequential(convolution, nn.BatchNorm2d(layer["to"]), *([nn.ReLU6()] if layer["relu6"] else []))

    def forward(self, pixels):
        x = (pixels - self.mean) / self.std
        outputs = []
        for layer, module in zip(self.layers, self.modules_):
            if layer["op"] == "add":
                x = x + outputs[layer["with"]]
            elif layer["op"] == "pool":
                x = x.mean((2, 3))
            else:
                x = module(x)
            outputs.append(x)
        return x
