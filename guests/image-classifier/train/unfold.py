"""A model file as a network that can be trained on: `python unfold.py default.safetensors --train train.npz --to start.pt`.

The file has batch norm folded into its weights. Here every batch norm gets the mean and the spread that pictures have at its
place, and the gain and shift that undo them: the network says the same, and trains as one that was never folded. Labels of
the file that `shapes.py` does not have any more are left out.
"""

import argparse

import torch

import reference
from network import SIDE, Network
from shapes import LABELS
from train import augmented, load


@torch.no_grad()
def unfolded(tensors, labels, pixels):
    kept = [labels.index(label) for label in LABELS]
    network = Network(len(LABELS))
    x, outputs = (pixels - network.mean) / network.std, []
    for i, (layer, module) in enumerate(zip(network.layers, network.modules_)):
        if layer["op"] == "add":
            x = x + outputs[layer["with"]]
        elif layer["op"] == "pool":
            x = x.mean((2, 3))
        else:
            weight, bias = (torch.from_numpy(tensors[f"{i}.{name}"]) for name in ("weight", "bias"))
            if layer["op"] == "dense":
                module[1].weight.copy_(weight[kept])
                module[1].bias.copy_(bias[kept])
            else:
                convolution, norm = module[0], module[1]
                convolution.weight.copy_(weight.view_as(convolution.weight))
                plain = convolution(x)
                norm.running_mean.copy_(plain.mean((0, 2, 3)))
                norm.running_var.copy_(plain.var((0, 2, 3)))
                norm.weight.copy_(torch.sqrt(norm.running_var + norm.eps))
                norm.bias.copy_(bias + norm.running_mean)
            x = module.eval()(x)
        outputs.append(x)
    return network


def main():
    options = argparse.ArgumentParser()
    options.add_argument("model")
    options.add_argument("--train", required=True)
    options.add_argument("--to", required=True)
    options = options.parse_args()
    _, labels, tensors = reference.read(options.model)
    random = torch.Generator().manual_seed(6)
    images, _, _ = load(options.train)
    chosen = images[torch.randperm(len(images), generator=random)[:1000]]
    torch.save(unfolded(tensors, labels, augmented(chosen, random, SIDE)).state_dict(), options.to)


if __name__ == "__main__":
    main()
