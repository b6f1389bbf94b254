"""Compares our kernels with PyTorch's on the CPU: random weights, the same input, every output.

    crank build guests/network-lab --out target/lab
    python agree.py --crank target/release/crank --workers target/lab
    python agree.py --fixtures tests/data/networks

The first way serves `network-lab` with a real `crank serve`, runs each layer type alone, a small network
and a whole MobileNetV2 on the GPU that the host finds, and ends with 1 where an output differs by more
than 1e-3. The second writes the small networks with PyTorch's outputs, for the tests of the repository.
"""

import argparse
import base64
import json
import pathlib
import subprocess
import sys
import time
import urllib.request

import numpy
import torch
from torch.nn import functional

from export_mobilenetv2 import export, random_model
from model_file import Builder

TOLERANCE = 1e-3


class Network:
    """Layers for us and for PyTorch at once."""

    def __init__(self, name, size=(9, 9), scale=1.0):
        self.name = name
        height, width = size
        self.image = torch.randn(1, 3, height, width) * scale
        self.builder = Builder(width, height)
        self.output = self.image
        self.outputs = []

    def _weights(self, *shape):
        fan = numpy.prod(shape[1:])
        return torch.randn(*shape) * (2 / fan) ** 0.5, torch.randn(shape[0]) * 0.5

    def _add(self, output, op, **fields):
        self.output = output
        self.outputs.append(output)
        self.builder.layer(op, **fields)
        return self

    def _moved(self, op, weight, bias, stride, padding, relu6, groups):
        output = functional.conv2d(self.output, weight, bias, stride, padding, groups=groups)
        output = functional.relu6(output) if relu6 else output
        return self._add(
            output, op, weight=weight, bias=bias, stride=stride, padding=padding, relu6=relu6
        )

    def conv(self, outputs, window, stride=1, padding=0, relu6=False):
        weight, bias = self._weights(outputs, self.output.shape[1], *window)
        return self._moved("conv", weight, bias, stride, padding, relu6, 1)

    def depthwise(self, window, stride=1, padding=0, relu6=False):
        channels = self.output.shape[1]
        weight, bias = self._weights(channels, 1, *window)
        return self._moved("depthwise", weight, bias, stride, padding, relu6, channels)

    def pointwise(self, outputs, relu6=False):
        weight, bias = self._weights(outputs, self.output.shape[1], 1, 1)
        output = functional.conv2d(self.output, weight, bias)
        output = functional.relu6(output) if relu6 else output
        return self._add(output, "pointwise", weight=weight, bias=bias, relu6=relu6)

    def relu6(self):
        return self._add(functional.relu6(self.output), "relu6")

    def add(self, layer):
        return self._add(self.output + self.outputs[layer], "add", **{"with": layer})

    def pool(self):
        return self._add(self.output.mean((2, 3), keepdim=True), "pool")

    def dense(self, outputs):
        flat = self.output.flatten(1)
        weight, bias = self._weights(outputs, flat.shape[1])
        output = functional.linear(flat, weight, bias)
        return self._add(output[..., None, None], "dense", weight=weight, bias=bias)

    def softmax(self):
        flat = functional.softmax(self.output.flatten(1), 1)
        return self._add(flat[..., None, None], "softmax")

    def file(self):
        return self.builder.file(str(at) for at in range(self.output.numel()))


def small():
    """Each layer type alone, in its shapes, and a network of inverted residuals."""
    torch.manual_seed(7)
    yield Network("conv").conv(10, (3, 3), 2, 1, relu6=True)
    yield Network("conv-oblong", (8, 11)).conv(5, (2, 5), 1, 2)
    yield Network("depthwise").depthwise((3, 3), 1, 1, relu6=True)
    yield Network("depthwise-strided", (10, 7)).depthwise((5, 5), 2, 2)
    yield Network("pointwise").pointwise(18, relu6=True)
    yield Network("pointwise-many-pixels", (13, 27)).pointwise(7)
    yield Network("pointwise-fours", (11, 12)).pointwise(8).pointwise(12, relu6=True)
    yield Network("relu6", scale=6.0).relu6()
    yield Network("add").pointwise(6).pointwise(6).add(0)
    yield Network("pool").pool()
    yield Network("dense").dense(20)
    yield Network("softmax", (5, 5)).softmax()
    network = Network("residual", (16, 16)).conv(8, (3, 3), 2, 1, relu6=True)
    network.pointwise(24, relu6=True).depthwise((3, 3), 1, 1, relu6=True).pointwise(8).add(0)
    network.pointwise(24, relu6=True).depthwise((3, 3), 2, 1, relu6=True).pointwise(12)
    yield network.pointwise(40).relu6().pool().dense(16).softmax()


def whole(seed):
    """A MobileNetV2 up to its logits: the file, the input, PyTorch's output."""
    model = random_model(seed, 1000)
    image = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        for _ in range(3):
            began = time.perf_counter()
            output = model(image)
            took = time.perf_counter() - began
    print(f"PyTorch on {torch.get_num_threads()} threads: {1e3 * took:.0f} ms")
    builder = export(model)
    builder.layers.pop()
    return builder.file(f"{at}" for at in range(1000)), image, output


class Lab:
    """A host that serves `network-lab`."""

    def __init__(self, crank, workers):
        command = [crank, "serve", workers, "--listen", "127.0.0.1:0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for line in self.process.stdout:
            print(line, end="")
            if "listening on " in line:
                self.url = line.split("listening on ")[1].split()[0]
                return
        sys.exit("the host does not start")

    def run(self, model, image):
        text = lambda data: base64.b64encode(data).decode()
        body = {"model": text(model), "input": text(image.numpy().astype("<f4").tobytes())}
        request = urllib.request.Request(
            f"{self.url}/invoke/network/run",
            json.dumps(body).encode(),
            {"content-type": "application/json"},
        )
        began = time.perf_counter()
        try:
            with urllib.request.urlopen(request) as answer:
                took = time.perf_counter() - began
                return json.load(answer), took, answer.headers["server-timing"]
        except urllib.error.HTTPError as error:
            sys.exit(error.read().decode())

    def end(self):
        self.process.terminate()
        self.process.wait()


def compare(lab, name, model, image, expected):
    """Whether we agree; prints by how much."""
    for _ in range(2):
        answer, took, timing = lab.run(model, image)
    ours = numpy.array(answer["output"], dtype="f4")
    theirs = expected.detach().numpy().flatten()
    apart = numpy.abs(ours - theirs).max() if ours.shape == theirs.shape else numpy.inf
    print(
        f"{'ok ' if apart <= TOLERANCE else 'BAD'} {name:<22} {theirs.size:>5} outputs up to "
        f"{numpy.abs(theirs).max():8.3f}, apart {apart:.1e}; {answer['steps']:.2e} steps, "
        f"{answer['memory'] / 2**20:.1f} MiB, second call {1e3 * took:.0f} ms; {timing}"
    )
    return apart <= TOLERANCE


def fixtures(directory):
    directory.mkdir(parents=True, exist_ok=True)
    for network in small():
        (directory / f"{network.name}.safetensors").write_bytes(network.file())
        numbers = {
            "input": [round(value, 7) for value in network.image.flatten().tolist()],
            "output": [round(value, 7) for value in network.output.flatten().tolist()],
        }
        (directory / f"{network.name}.json").write_text(json.dumps(numbers) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--crank", help="the program")
    parser.add_argument("--workers", help="a directory with network-lab.wasm")
    parser.add_argument("--seed", type=int, default=1, help="of the MobileNetV2's weights")
    parser.add_argument("--fixtures", type=pathlib.Path, metavar="DIR", help="only write the small networks")
    given = parser.parse_args()
    if given.fixtures:
        return fixtures(given.fixtures)
    if not (given.crank and given.workers):
        parser.error("--crank and --workers, or --fixtures")
    lab = Lab(given.crank, given.workers)
    try:
        agreed = [
            compare(lab, network.name, network.file(), network.image, network.output)
            for network in small()
        ]
        agreed.append(compare(lab, "MobileNetV2", *whole(given.seed)))
    finally:
        lab.end()
    sys.exit(0 if all(agreed) else 1)


if __name__ == "__main__":
    main()
