"""The model file of the image classifier: safetensors, with the layers and the labels in its metadata."""

import json
import struct

import numpy

# ImageNet's, as torchvision's models want them.
MEAN = [0.485, 0.456, 0.406]
STD = [0.229, 0.224, 0.225]


class Builder:
    """Collects layers and their weights."""

    def __init__(self, width, height, mean=MEAN, std=STD):
        self.input = {"width": width, "height": height, "mean": list(mean), "std": list(std)}
        self.layers = []
        self.tensors = {}

    def layer(self, op, **fields):
        """Adds a layer; `weight` and `bias` are arrays. Returns its number."""
        at = len(self.layers)
        layer = {"op": op}
        for key, value in fields.items():
            if key in ("weight", "bias"):
                name = f"{at:03}.{key}"
                self.tensors[name] = numpy.ascontiguousarray(value, dtype="<f4")
                value = name
            layer[key] = value
        self.layers.append(layer)
        return at

    def file(self, labels):
        """The bytes of the file."""
        header = {
            "__metadata__": {
                "network": json.dumps({"input": self.input, "layers": self.layers}),
                "labels": json.dumps(list(labels), ensure_ascii=False),
            }
        }
        at = 0
        for name, tensor in self.tensors.items():
            header[name] = {
                "dtype": "F32",
                "shape": list(tensor.shape),
                "data_offsets": [at, at + tensor.nbytes],
            }
            at += tensor.nbytes
        text = json.dumps(header, ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        data = b"".join(tensor.tobytes() for tensor in self.tensors.values())
        return struct.pack("<Q", len(text)) + text + data
