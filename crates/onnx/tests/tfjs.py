"""Turns a TensorFlow.js graph model into a SavedModel, with TensorFlow alone.

    python tfjs.py MODEL.json FOLDER

TensorFlow.js keeps the graph as JSON and the weights in files beside it, often quantised; its fused
operators are its own. Here each weight becomes a constant of the dtype that its node states, and each
fused operator the operators that it was made of, as they stood before that converter.
"""

import json
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import numpy as np
import tensorflow as tf
from google.protobuf import json_format

tf1 = tf.compat.v1
# What a fused operator is without what was fused into it.
FUSED = {
    "_FusedConv2D": "Conv2D",
    "FusedDepthwiseConv2dNative": "DepthwiseConv2dNative",
    "_FusedMatMul": "MatMul",
}
# Attributes that the operator before fusion has, too.
KEPT = {
    "Conv2D": ("T", "strides", "padding", "explicit_paddings", "data_format", "dilations"),
    "DepthwiseConv2dNative": ("T", "strides", "padding", "explicit_paddings", "data_format", "dilations"),
    "MatMul": ("T", "transpose_a", "transpose_b"),
}


def weights(manifest, folder):
    """All weights by their names, as numbers of the dtype that the manifest states."""
    found = {}
    for group in manifest:
        content = b"".join((folder / path).read_bytes() for path in group["paths"])
        at = 0
        for weight in group["weights"]:
            quantised = weight.get("quantization")
            held = np.dtype(quantised["dtype"] if quantised else weight["dtype"])
            count = int(np.prod(weight["shape"], dtype=np.int64))
            array = np.frombuffer(content, held, count, at)
            at += count * held.itemsize
            if quantised and "scale" in quantised:
                array = array.astype(np.float64) * quantised["scale"] + quantised["min"]
            if weight["dtype"] != "float32":
                array = np.rint(array)
            found[weight["name"]] = array.astype(weight["dtype"]).reshape(weight["shape"])
        assert at == len(content), f"{len(content) - at} bytes of the weights belong to none"
    return found


def added(graph, op, name, inputs, dtype):
    node = graph.node.add(op=op, name=name, input=inputs)
    node.attr["T"].type = dtype
    return node


def split(graph, node):
    """A fused operator as those that it does one after another; the last has its name."""
    plain = FUSED[node.op]
    steps = [step.decode() for step in node.attr["fused_ops"].list.s]
    dtype = node.attr["T"].type or tf.float32.as_datatype_enum
    extras = list(node.input[2:])
    names = [f"{node.name}/{plain}", *(f"{node.name}/{step}" for step in steps)]
    names[-1] = node.name
    first = added(graph, plain, names[0], node.input[:2], dtype)
    for key in KEPT[plain]:
        if key in node.attr:
            first.attr[key].CopyFrom(node.attr[key])
    for before, name, step in zip(names, names[1:], steps):
        if step in ("BiasAdd", "BatchMatMul"):
            biased = added(graph, "BiasAdd", name, [before, extras.pop(0)], dtype)
            if "data_format" in node.attr and plain != "MatMul":
                biased.attr["data_format"].CopyFrom(node.attr["data_format"])
        elif step == "Prelu":
            prelu(graph, name, before, extras.pop(0), dtype)
        elif step == "LeakyRelu":
            added(graph, step, name, [before], dtype).attr["alpha"].f = node.attr["leakyrelu_alpha"].f or 0.2
        else:
            added(graph, step, name, [before], dtype)
    assert not extras, f"{node.name} has inputs that no step takes"


def prelu(graph, name, x, slope, dtype):
    """TensorFlow has no operator for it: what is above zero, less what is below times the slope."""
    added(graph, "Relu", f"{name}/above", [x], dtype)
    added(graph, "Neg", f"{name}/turned", [x], dtype)
    added(graph, "Relu", f"{name}/below", [f"{name}/turned"], dtype)
    added(graph, "Mul", f"{name}/sloped", [slope, f"{name}/below"], dtype)
    added(graph, "Sub", name, [f"{name}/above", f"{name}/sloped"], dtype)


def constant(node, values):
    dtype = tf.as_dtype(node.attr["dtype"].type)
    array = values[node.name].astype(dtype.as_numpy_dtype)
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(array, dtype))


def graph_of(model, folder):
    """The graph as TensorFlow has it."""
    values = weights(model["weightsManifest"], folder)
    graph = tf1.GraphDef()
    graph.versions.producer = 1087
    for stated in model["modelTopology"]["node"]:
        node = json_format.ParseDict(stated, tf1.NodeDef())
        if node.op in FUSED:
            split(graph, node)
        elif node.op == "Prelu":
            prelu(graph, node.name, *node.input, tf.float32.as_datatype_enum)
        else:
            if node.op == "Const" and node.name in values:
                constant(node, values)
            graph.node.append(node)
    return graph


def ends(model, graph):
    """Aliases and tensors of what is fed and fetched."""
    stated = model.get("signature") or model.get("userDefinedMetadata", {}).get("signature") or {}
    fed = [node.name for node in graph.node if node.op == "Placeholder"]
    read = {edge.split(":")[0].lstrip("^") for node in graph.node for edge in node.input}
    last = [node.name for node in graph.node if node.name not in read and node.op not in ("NoOp", "Const")]

    def tensors(part, names):
        given = {alias.split(":")[0]: spec["name"] for alias, spec in stated.get(part, {}).items()}
        given = given or {name: name for name in names}
        # A file may state ends that its graph lacks.
        known = {node.name for node in graph.node}
        given = {a: t for a, t in given.items() if t.split(":")[0] in known} or {n: n for n in names}
        return {a.replace("/", "_"): t if ":" in t else t + ":0" for a, t in given.items()}

    return tensors("inputs", fed), tensors("outputs", last)


def convert(path, folder):
    """Writes the SavedModel; gives its signature's inputs and outputs, `alias: tensor`."""
    path = pathlib.Path(path)
    model = json.loads(path.read_text())
    definition = graph_of(model, path.parent)
    inputs, outputs = ends(model, definition)
    with tf.Graph().as_default() as graph, tf1.Session(graph=graph) as session:
        tf.import_graph_def(definition, name="")
        named = lambda ends: {alias: graph.get_tensor_by_name(tensor) for alias, tensor in ends.items()}
        tf1.saved_model.simple_save(session, str(folder), named(inputs), named(outputs))
    return inputs, outputs


if __name__ == "__main__":
    print(*convert(sys.argv[1], sys.argv[2]), sep="\n")
