"""What a model file says of images, by NumPy alone: `python reference.py default.safetensors image.png ...`.

The meaning of the format, in the fewest lines: reads nothing but the file and the images.
"""

import argparse
import json

import numpy as np
from PIL import Image
from safetensors import safe_open


def read(path):
    """Layers and labels, and tensors by name."""
    with safe_open(path, framework="numpy") as file:
        tensors = {name: file.get_tensor(name).astype(np.float32) for name in file.keys()}
        metadata = file.metadata()
    return json.loads(metadata["network"]), json.loads(metadata["labels"]), tensors


def prepared(image, input):
    """The whole image at the network's size, transparency on white, normalised, channels first."""
    if image.mode in ("RGBA", "LA", "P", "PA"):
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    image = image.convert("RGB").resize((input["width"], input["height"]), Image.Resampling.BILINEAR)
    x = np.asarray(image, np.float32) / 255
    return ((x - np.float32(input["mean"])) / np.float32(input["std"])).transpose(2, 0, 1)


def windows(x, kernel, stride, padding):
    """[C, H, W] to [C, H', W', kh, kw]."""
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    return np.lib.stride_tricks.sliding_window_view(x, kernel, (1, 2))[:, ::stride, ::stride]


def forward(network, tensors, x):
    """The outputs of every layer; the last is what the model says."""
    outputs = []
    for layer in network["layers"]:
        op = layer["op"]
        weight, bias = (tensors.get(layer.get(name)) for name in ("weight", "bias"))
        if op == "conv":
            x = np.einsum("chwij,ocij->ohw", windows(x, weight.shape[2:], layer["stride"], layer["padding"]), weight)
        elif op == "depthwise":
            x = np.einsum("chwij,cij->chw", windows(x, weight.shape[2:], layer["stride"], layer["padding"]), weight[:, 0])
        elif op == "pointwise":
            x = np.einsum("chw,oc->ohw", x, weight)
        elif op == "relu6":
            x = np.clip(x, 0, 6)
        elif op == "add":
            x = x + outputs[layer["with"]]
        elif op == "pool":
            x = x.mean((1, 2))
        elif op == "dense":
            x = weight @ x + bias
        elif op == "softmax":
            x = np.exp(x - x.max())
            x = x / x.sum()
        else:
            raise ValueError(f"no layer is called {op}")
        if op in ("conv", "depthwise", "pointwise"):
            x = x + bias[:, None, None]
            if layer["relu6"]:
                x = np.clip(x, 0, 6)
        outputs.append(x.astype(np.float32))
        x = outputs[-1]
    return outputs


def main():
    options = argparse.ArgumentParser()
    options.add_argument("model")
    options.add_argument("images", nargs="+")
    options = options.parse_args()
    network, labels, tensors = read(options.model)
    for path in options.images:
        said = forward(network, tensors, prepared(Image.open(path), network["input"]))[-1]
        best = np.argsort(-said)[:3]
        print(path + ":", ", ".join(f"{labels[i]} {said[i]:.3f}" for i in best))


if __name__ == "__main__":
    main()
