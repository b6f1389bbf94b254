"""Folds batch norm and writes the model file: `python export.py network.pt --check validation.npz --to default.safetensors`.

Weights are written as F16. The file is read back and run by `reference.py`; it must agree with the trained network within 0.05.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

import reference
from network import MEAN, SIDE, STD, Network
from shapes import LABELS

TOLERANCE = 0.05


def folded(convolution, norm):
    """Weight and bias of a convolution with its batch norm in it."""
    gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return convolution.weight * gain[:, None, None, None], norm.bias - norm.running_mean * gain


def exported(network):
    """The layers as the format has them, and the tensors they name."""
    layers, tensors = [], {}
    for i, (layer, module) in enumerate(zip(network.layers, network.modules_)):
        op = layer["op"]
        if op in ("add", "pool"):
            layers.append(dict(layer))
            continue
        if op == "dense":
            weight, bias = module[1].weight, module[1].bias
            out = {}
        else:
            weight, bias = folded(module[0], module[1])
            out = {"relu6": layer["relu6"]}
            if op == "pointwise":
                weight = weight[:, :, 0, 0]
            else:
                out.update(stride=layer["stride"], padding=layer["padding"])
        names = {"weight": f"{i}.weight", "bias": f"{i}.bias"}
        tensors[names["weight"]] = weight.detach().half().contiguous()
        tensors[names["bias"]] = bias.detach().half().contiguous()
        layers.append({"op": op, **names, **out})
    layers.append({"op": "softmax"})
    input = {"width": SIDE, "height": SIDE, "mean": MEAN, "std": STD, "fit": "stretch"}
    return {"input": input, "layers": layers}, tensors


def check(path, trained, images):
    """The largest difference of a logit or a confidence between the file and the trained network."""
    network, _, tensors = reference.read(path)
    with torch.no_grad():
        wanted = trained(torch.from_numpy(images).permute(0, 3, 1, 2).float())
    worst = 0.0
    for image, logits in zip(images, wanted):
        *_, dense, said = reference.forward(network, tensors, reference.prepared(Image.fromarray(image), network["input"]))
        worst = max(worst, np.abs(dense - logits.numpy()).max(), np.abs(said - logits.softmax(0).numpy()).max())
    return worst


def main():
    options = argparse.ArgumentParser()
    options.add_argument("network")
    options.add_argument("--check", required=True, help="pictures to compare on")
    options.add_argument("--to", required=True)
    options = options.parse_args()
    torch.set_num_threads(1)
    trained = Network(len(LABELS))
    trained.load_state_dict(torch.load(options.network, weights_only=True))
    trained.eval()
    network, tensors = exported(trained)
    compact = lambda value: json.dumps(value, separators=(",", ":"))
    save_file(tensors, options.to, {"network": compact(network), "labels": compact(LABELS)})
    worst = check(options.to, trained, np.load(options.check)["images"][::37])
    print(sum(t.numel() for t in tensors.values()), "parameters,", Path(options.to).stat().st_size, f"bytes, differs by at most {worst:.2e}")
    if worst > TOLERANCE:
        raise SystemExit("the file disagrees with the trained network")


if __name__ == "__main__":
    main()
