"""Forms of operators in ONNX files on the embedded engine, held to ONNX Runtime.

What networks do beyond layers of floats: shapes that the graph computes, whole numbers and truths, parts of
tensors, resizing, normalisations, recurrent layers. `test_onnx_embedded.py` has the plain layers.
"""

import unittest

import grpc
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto as T
from onnx import helper as h

from models import Folders
from server import Server

ENGINE = "--engine=embedded"
DICE = np.random.default_rng(11)
DTYPES = {"f": (T.FLOAT, np.float32), "u": (T.UINT8, np.uint8), "i": (T.INT32, np.int32), "l": (T.INT64, np.int64), "b": (T.BOOL, bool)}
IMAGE = ("n", 4, 9, 11)
OPEN = ("n", 3, "h", "w")
ODD = np.float32([np.nan, np.inf, -np.inf, 0, -0.0, 0.5, -0.5, 1.5, 2.5, -2.5, 1e-20, 3e38, -3e38, 88, -88, 1])


def floats(*shape):
    return DICE.normal(size=shape).astype(np.float32)


def longs(*values):
    return np.array(values, np.int64)


def one(value):
    return np.array(value, np.float32)


class Net:
    """A graph: lines of `op inputs > outputs`, inputs `name:dtype` with shapes, constants by name."""

    def __init__(self, name, lines, inputs, constants=None, opset=17, outputs=("y",), sizes=({"n": 1}, {"n": 3}),
                 draw=None, attributes=None):
        self.name, self.sizes, self.draw, self.outputs = f"{name} opset={opset}", sizes, draw or {}, outputs
        self.inputs = {key.split(":")[0]: ((key + ":f").split(":")[1], shape) for key, shape in inputs.items()}
        nodes = []
        for at, line in enumerate(lines.split(";")):
            left, right = line.split(">")
            op, *read = left.split()
            own = (attributes or {}).get(at, {})
            nodes.append(h.make_node(op, ["" if name == "_" else name for name in read], right.split(), **own))
        ends = [h.make_tensor_value_info(key, DTYPES[dtype][0], shape)
                for key, (dtype, shape) in self.inputs.items()]
        graph = h.make_graph(
            nodes, "g", ends, [onnx.ValueInfoProto(name=name) for name in outputs],
            [onnx.numpy_helper.from_array(np.asarray(value), key) for key, value in (constants or {}).items()])
        ir = 3 if opset < 9 else 8 if opset < 19 else 10
        if ir == 3:
            graph.input.extend(h.make_tensor_value_info(t.name, t.data_type, t.dims)
                               for t in graph.initializer)
        model = h.make_model(graph, opset_imports=[h.make_opsetid("", opset)], ir_version=ir)
        inferred = onnx.shape_inference.infer_shapes(model)
        for end, known in zip(model.graph.output, inferred.graph.output):
            end.CopyFrom(known)
            if not end.type.tensor_type.elem_type:  # not every operator is inferred
                end.CopyFrom(h.make_tensor_value_info(end.name, T.FLOAT, None))
        self.model = model

    def given(self):
        for sizes in self.sizes:
            values = {}
            for key, (dtype, shape) in self.inputs.items():
                own = [sizes.get(size, size) if isinstance(size, str) else size for size in shape]
                if key in self.draw:
                    values[key] = self.draw[key](own).astype(DTYPES[dtype][1])
                elif dtype == "f":
                    values[key] = floats(*own)
                else:
                    low, high = {"b": (0, 2), "u": (0, 256)}.get(dtype, (-4, 5))
                    values[key] = DICE.integers(low, high, own).astype(DTYPES[dtype][1])
            yield values


def odd(shape):
    return np.resize(ODD, shape)


def plain(op, shape, *constants, opset=17, draw=None, sizes=({"n": 1}, {"n": 3}), **attributes):
    """A net of one operator over `x`."""
    named = {f"c{at}": value for at, value in enumerate(constants) if value is not None}
    read = " ".join(f"c{at}" if value is not None else "_" for at, value in enumerate(constants))
    return Net(f"{op} {shape} {attributes}", f"{op} x {read} > y", {"x": shape}, named, opset, sizes=sizes,
               draw={"x": draw} if draw else None, attributes={0: attributes})


def elements():
    for op in ("Acos", "Asin", "Atan", "Atanh", "Cosh", "Round", "Sinh", "Tan", "Sign", "Selu", "Mish",
               "HardSwish", "HardSigmoid", "ThresholdedRelu", "Celu", "Gelu", "Elu", "LeakyRelu", "Softplus",
               "Softsign", "Sigmoid", "Tanh", "Exp", "Log", "Sqrt", "Reciprocal", "Erf", "Relu", "Floor", "Ceil", "Abs",
               "Neg", "Sin", "Cos"):
        opset = {"Mish": 18, "Gelu": 20}.get(op, 17)
        yield plain(op, ("n", 16), opset=opset)
        yield plain(op, ("n", 16), opset=opset, draw=odd)
    yield plain("Gelu", ("n", 16), opset=20, approximate="tanh")
    yield plain("Gelu", ("n", 16), opset=20, approximate="tanh", draw=odd)
    yield plain("Pow", ("n", 1, 16), np.float32([[-1], [0], [0.5], [2], [3], [-2.5], [np.inf], [np.nan]]), opset=13, draw=odd)
    yield plain("Pow", ("n", 16), one(2), opset=13, draw=odd)
    for bounds in ([None, one(1)], [one(-1)], [None, None]):
        yield plain("Clip", ("n", 16), *bounds, opset=13, draw=odd)
    yield plain("Clip", ("n", 16), opset=7, max=2.0, draw=odd)
    yield Net("Clip by what is computed", "ReduceMax x > m;Sub m two > l;Clip x l > c;Clip c _ v > y", {"x": ("n", 6)},
              {"two": one(2), "v": np.float32([0.75])}, opset=13, attributes={0: {"keepdims": 0}})
    yield plain("HardSigmoid", ("n", 7), opset=7, alpha=0.3, beta=0.4)
    yield plain("ThresholdedRelu", ("n", 7), opset=10, alpha=0.3)
    yield plain("Celu", ("n", 7), opset=12, alpha=0.3)
    yield plain("PRelu", IMAGE, floats(4, 1, 1), opset=9)
    yield plain("PRelu", ("n", 16), floats(1), opset=16, draw=odd)
    yield plain("Clip", ("n", 16), one(-0.5), one(6), draw=odd)
    yield plain("Pow", ("n", 5), longs(2)[0], opset=13)
    for op in ("Max", "Min", "Sum", "Mean"):
        yield plain(op, ("n", 4), floats(4), floats(3, 1, 4), opset=13)
        yield plain(op, ("n", 16), floats(16), opset=8, draw=odd)
    for op in ("Add", "Sub", "Mul", "Div"):
        yield plain(op, ("n", 1, 16), odd((16, 1)), draw=odd)
    for op in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"):
        opset = 16 if "Or" in op else 11
        yield plain(op, ("n", 1, 16), odd((16, 1)), opset=opset, draw=odd)
        for dtype in "il":
            yield Net(f"{op} {dtype}", f"{op} a b > y", {f"a:{dtype}": ("n", 5), f"b:{dtype}": (5,)}, opset=opset)
    for op in ("And", "Or", "Xor", "Equal"):
        yield Net(op, f"{op} a b > y", {"a:b": ("n", 8), "b:b": (8,)}, opset=13)
    yield Net("Not", "Not a > y", {"a:b": ("n", 8)}, opset=7)
    yield plain("IsNaN", ("n", 16), opset=13, draw=odd)
    for dtype in "fil":
        yield Net(f"Where {dtype}", "Where c a b > y", {"c:b": ("n", 1, 4), f"a:{dtype}": (3, 1), f"b:{dtype}": (4,)})
    for dtype in "fil":
        yield Net(f"Cast {dtype} to bool", "Cast a > y", {f"a:{dtype}": ("n", 16)}, opset=13,
                  attributes={0: {"to": T.BOOL}}, draw={"a": odd} if dtype == "f" else None)
    for dtype, to in (("i", T.FLOAT), ("l", T.FLOAT), ("b", T.FLOAT), ("i", T.INT64), ("l", T.INT32), ("b", T.INT64)):
        yield Net(f"Cast {dtype} to {to}", "Cast a > y", {f"a:{dtype}": ("n", 5)}, attributes={0: {"to": to}})
    yield Net("images of bytes", "Transpose x > t;Slice t one far two > s;Cast s > f;Div f most > y", {"x:u": ("n", 5, 6, 3)},
              {"one": longs(1), "far": longs(99), "two": longs(2), "most": one(255)}, opset=13,
              attributes={0: {"perm": [0, 3, 1, 2]}, 2: {"to": T.FLOAT}})
    yield Net("truths added", "Cast a > b;Cast b > c;Add b b > d;Mul d b > y", {"a:b": ("n", 5)},
              outputs=("y", "c"), attributes={0: {"to": T.INT64}, 1: {"to": T.FLOAT}})


def reductions():
    for op in ("ReduceL1", "ReduceL2", "ReduceProd", "ReduceSumSquare", "ReduceMean", "ReduceMax", "ReduceSum"):
        yield plain(op, IMAGE, opset=12, axes=[-1, 1])
        if op == "ReduceSum":
            yield plain(op, IMAGE, longs(0, 3), opset=18, keepdims=0)
        else:
            yield plain(op, IMAGE, longs(2), opset=18, keepdims=0)
    yield plain("ReduceMax", ("n", 16), opset=17, axes=[1], draw=odd)
    yield plain("ReduceSum", ("n", 16), longs(1), opset=13, draw=odd)
    for opset in (7, 12, 13, 21):
        yield plain("Softmax", IMAGE, opset=opset, axis=1)
        yield plain("LogSoftmax", IMAGE, opset=opset, axis=-2)
    for op in ("ReduceMean", "ReduceMin", "ReduceMax", "ReduceProd", "ReduceL2", "ReduceL1", "ReduceSumSquare"):
        yield plain(op, ("n", 4, 4), opset=13, axes=[1], draw=odd)
    for op in ("Softmax", "LogSoftmax"):
        yield plain(op, ("n", 16), draw=odd)
        yield plain(op, ("n", 2, 3), draw=lambda shape: np.full(shape, -np.inf))
        yield plain(op, ("n", 5), draw=lambda shape: np.resize([-np.inf, 1, 90, -90, 0], shape))
    yield plain("GlobalAveragePool", ("n", 4, 2, 2), opset=13, draw=odd)
    # What ONNX Runtime makes of NaN depends on its place in the window.
    yield plain("GlobalMaxPool", ("n", 5, 1, 3), opset=13, draw=lambda shape: np.resize(ODD[1:], shape))
    yield plain("LayerNormalization", ("n", 4, 4), floats(4), floats(4), opset=17, draw=odd)
    yield plain("LayerNormalization", ("n", 4), floats(4), opset=17, draw=lambda shape: np.full(shape, 3.7))
    yield plain("LayerNormalization", ("n", 5, 8), floats(8), floats(8), opset=17)
    yield plain("LayerNormalization", ("n", 5, 8), floats(5, 8), opset=17, axis=1, epsilon=1e-3)
    yield plain("InstanceNormalization", IMAGE, floats(4), floats(4), opset=7)
    yield plain("InstanceNormalization", ("n", 4, 7), floats(4), floats(4), opset=21, epsilon=1e-2)
    yield plain("GroupNormalization", IMAGE, floats(4), floats(4), opset=21, num_groups=2)
    moments = [floats(6), floats(6), floats(6), floats(6) ** 2]
    yield plain("BatchNormalization", ("n", 6), *moments, opset=9)
    yield plain("BatchNormalization", ("n", 6, 5), *moments, opset=15)
    yield plain("GlobalAveragePool", ("n", 4, 7), opset=11)
    yield plain("GlobalMaxPool", ("n", 4, "t"), opset=21, sizes=({"n": 1, "t": 4}, {"n": 2, "t": 9}))


def windows():
    open_sizes = ({"n": 1, "h": 9, "w": 12}, {"n": 2, "h": 16, "w": 7})
    kernel = floats(5, 3, 3, 4)
    for pad in ("SAME_UPPER", "SAME_LOWER"):
        for strides in ([1, 1], [2, 3]):
            more = {"auto_pad": pad, "strides": strides}
            yield plain("Conv", OPEN, kernel, sizes=open_sizes, **more)
            yield plain("Conv", ("n", 3, 9, 12), kernel, floats(5), opset=7, **more)
            yield plain("MaxPool", OPEN, sizes=open_sizes, kernel_shape=[3, 4], **more)
            yield plain("AveragePool", ("n", 3, 9, 12), kernel_shape=[3, 4], **more)
        yield plain("AveragePool", OPEN, sizes=open_sizes, kernel_shape=[3, 4], auto_pad=pad)
    yield plain("Conv", ("n", 3, "t"), floats(6, 1, 4), floats(6), group=3, dilations=[2], pads=[3, 1], strides=[2],
                sizes=({"n": 1, "t": 20}, {"n": 3, "t": 9}))
    for op in ("MaxPool", "AveragePool"):
        for shape, sizes in ((OPEN, open_sizes), (("n", 3, 8, 10), ({"n": 2},))):
            yield plain(op, shape, sizes=sizes, opset=11, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
            yield plain(op, shape, sizes=sizes, opset=12, kernel_shape=[3, 2], strides=[2, 2], pads=[1, 1, 0, 0], ceil_mode=1)
        yield plain(op, ("n", 3, 8, 10), opset=19, kernel_shape=[2, 2], strides=[3, 3], ceil_mode=1)
        yield plain(op, ("n", 3, 11), opset=12, kernel_shape=[3], strides=[2], pads=[1, 0])
    yield plain("AveragePool", OPEN, sizes=open_sizes, opset=10, kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1)
    yield plain("MaxPool", ("n", 3, 5, 4), opset=12, kernel_shape=[2, 2], draw=lambda shape: np.resize(ODD[1:], shape))
    turned = {"sizes": open_sizes, "opset": 11}
    yield plain("ConvTranspose", OPEN, floats(3, 5, 2, 2), floats(5), strides=[2, 2], **turned)
    yield plain("ConvTranspose", OPEN, floats(3, 5, 3, 4), strides=[2, 3], pads=[1, 1, 0, 2], output_padding=[1, 1], **turned)
    yield plain("ConvTranspose", ("n", 4, 5, 6), floats(4, 2, 3, 3), floats(4), group=2, dilations=[2, 1])
    yield plain("ConvTranspose", ("n", 4, 7), floats(4, 3, 4), strides=[2], pads=[1, 1])


def parts():
    for mode in ("constant", "reflect", "edge"):
        yield plain("Pad", IMAGE, opset=7, mode=mode, pads=[0, 0, 2, 1, 0, 0, 3, 0])
        yield plain("Pad", IMAGE, longs(0, 0, 2, 1, 0, 0, 3, 0), opset=13, mode=mode)
        yield plain("Pad", ("n", 3, 9), longs(0, 0, 2, 0, 0, 8), opset=19, mode=mode)
        yield plain("Pad", ("n", "t"), longs(0, 5, 0, 4), opset=13, mode=mode, sizes=({"n": 2, "t": 8},))
    yield plain("Pad", ("n", 3, 4), longs(1, 0, 0, 2, 0, 1), one(-7), opset=11)
    yield plain("Pad", ("n", 3, 4), longs(1, 2), one(0.5), longs(-1), opset=18)
    far = 2**63 - 1
    for starts, ends, axes, steps in (
            ([1], [3], [1], None), ([-2], [far], [-1], None), ([0, 1], [far, -1], [1, 2], [2, 3]),
            ([-1], [-far], [1], [-1]), ([5], [-9], [2], [-2]), ([0], [1000], [0], None), ([4], [2], [1], None),
            ([-100], [2], [2], [1])):
        own = [longs(*values) if values else None for values in (starts, ends, axes, steps)]
        yield plain("Slice", ("n", 6, 7), *own, opset=13)
        if steps is None:
            yield plain("Slice", ("n", 6, 7), opset=9, starts=starts, ends=ends, axes=axes)
    yield plain("Slice", ("n", "t"), longs(-1), longs(-far), longs(1), longs(-1), sizes=({"n": 2, "t": 5},))
    yield plain("Slice", ("n", "t"), longs(2), longs(9), longs(1), longs(2), sizes=tuple({"n": 1, "t": t} for t in (2, 5, 30)))
    yield plain("Slice", ("n", "t"), longs(-4), longs(-1), longs(1), sizes=tuple({"n": 1, "t": t} for t in (2, 5, 30)))
    yield Net("Split", "Split x > y z", {"x": ("n", 6)}, opset=11, outputs=("y", "z"), attributes={0: {"axis": 1, "split": [2, 4]}})
    yield Net("Split", "Split x > y z", {"x": ("n", 6)}, opset=13, outputs=("y", "z"), attributes={0: {"axis": -1}})
    yield Net("Split", "Split x > a y z", {"x": ("n", 7)}, opset=18, outputs=("y", "z"),
              attributes={0: {"axis": 1, "num_outputs": 3}})
    yield Net("Split", "Split x s > y z", {"x:l": (5, "n")}, {"s": longs(2, 3)}, opset=13, outputs=("y", "z"))
    for opset in (7, 13):
        yield plain("Gather", ("n", 5, 6), longs(2, -1, 0), opset=opset, axis=1)
    yield plain("Gather", ("n", 5), longs(-1)[0], opset=13, axis=1)
    for dtype in "il":
        yield Net(f"Gather by {dtype}", "Gather t i > y", {f"i:{dtype}": ("n", 3)}, {"t": floats(9, 4)}, opset=13)
        yield Net(f"Gather of {dtype}", "Gather t i > y", {f"t:{dtype}": (3, "n")}, {"i": longs(1, 1)}, opset=13)
    yield plain("Tile", ("n", 3), longs(2, 3), opset=13)
    yield plain("Expand", ("n", 1, 3), longs(2, 1, 4, 1), opset=13)
    for mode in ("DCR", "CRD"):
        yield plain("DepthToSpace", ("n", 8, 3, "w"), opset=13, blocksize=2, mode=mode, sizes=({"n": 2, "w": 5},))
    yield plain("SpaceToDepth", ("n", 3, 6, "w"), opset=13, blocksize=2, sizes=({"n": 2, "w": 4},))
    yield plain("Squeeze", (1, 3, 1), opset=13)
    yield plain("Flatten", ("n", 3, "w"), opset=11, axis=2, sizes=({"n": 2, "w": 5},))


def resizing():
    sizes = ({"n": 1, "h": 5, "w": 6}, {"n": 2, "h": 4, "w": 9})
    scales = np.float32([1, 1, 2, 3])
    empty = np.float32([])
    yield plain("Upsample", OPEN, opset=7, sizes=sizes, mode="nearest", scales=[1.0, 1.0, 2.0, 3.0])
    yield plain("Upsample", OPEN, scales, opset=9, sizes=sizes, mode="linear")
    yield plain("Resize", OPEN, scales, opset=10, sizes=sizes, mode="nearest")
    yield plain("Resize", OPEN, scales, opset=10, sizes=sizes, mode="linear")
    for opset in (11, 13, 18, 19):
        own = {"opset": opset, "sizes": sizes}
        yield plain("Resize", OPEN, empty, scales, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor", **own)
        yield plain("Resize", OPEN, empty, scales, mode="nearest", **own)
        for way in ("half_pixel", "asymmetric", "pytorch_half_pixel", "align_corners"):
            yield plain("Resize", OPEN, empty, scales, mode="linear", coordinate_transformation_mode=way, **own)
    for way in ("half_pixel", "asymmetric", "pytorch_half_pixel"):
        for high, wide in ((3, 4), (7, 1), (20, 5)):
            target = longs(2, 3, high, wide)
            yield plain("Resize", (2, 3, 6, 8), None, None, target, opset=13, mode="linear", coordinate_transformation_mode=way)
    for opset, way in ((13, "half_pixel"), (13, "asymmetric"), (13, "align_corners")):
        yield plain("Resize", (1, 4, 4, 4), empty, np.float32([1, 1, 2, 2]), opset=opset, mode="linear", draw=odd,
                    coordinate_transformation_mode=way)
    yield Net("Resize to another's", "Shape b > s;Slice s two four > hw;Shape x > t;Slice t zero two > nc;Concat nc hw > z;Resize x _ _ z > y",
              {"x": OPEN, "b": ("n", 2, "p", "q")}, {"zero": longs(0), "two": longs(2), "four": longs(4)}, opset=13,
              sizes=({"n": 1, "h": 5, "w": 6, "p": 10, "q": 7}, {"n": 2, "h": 8, "w": 8, "p": 4, "q": 3}),
              attributes={4: {"axis": 0}, 5: {"mode": "linear"}})


def products():
    yield Net("MatMul", "MatMul a b > y", {"a": ("n", 2, 3, 4), "b": (2, 4, 5)}, opset=13)
    yield Net("MatMul", "MatMul a b > y", {"a": ("n", 3, 4), "b": (4,)}, opset=13)
    yield Net("MatMul", "MatMul a b > y", {"a": (4,), "b": ("n", 4, 3)}, opset=9)
    yield plain("Gemm", ("n", 4), floats(4, 3), one(np.nan), opset=13, beta=0.0)
    for trans in (0, 1):
        shape = (6, "n") if trans else ("n", 6)
        yield plain("Gemm", shape, floats(6, 3), floats(3), opset=13, alpha=0.5, beta=2.0, transA=trans)
        yield plain("Gemm", shape, floats(6, 3), opset=11, alpha=0.5, transA=trans)
    for equation, a, b in (("bij,bjk->bik", ("n", 2, 3), ("n", 3, 4)), ("bhid,bhjd->bhij", ("n", 2, 3, 4), ("n", 2, 5, 4)),
                           ("bic,cd->bid", ("n", 3, 4), (4, 5)), ("bi,bj->bij", ("n", 3), ("n", 4)),
                           ("nkctv,kvw->nctw", ("n", 2, 3, 4, 5), (2, 5, 5))):
        yield Net(equation, "Einsum a b > y", {"a": a, "b": b}, opset=12, attributes={0: {"equation": equation}})
    for direction, count in (("forward", 1), ("reverse", 1), ("bidirectional", 2)):
        for op, gates in (("LSTM", 4), ("GRU", 3)):
            constants = {"w": floats(count, gates * 5, 3), "r": floats(count, gates * 5, 5), "c": floats(count, gates * 10)}
            own = {"hidden_size": 5, "direction": direction, **({"linear_before_reset": 1} if op == "GRU" else {})}
            out = ("y", "h", "s")[:2 if op == "GRU" else 3]
            sizes = ({"t": 1, "n": 1}, {"t": 6, "n": 2})
            yield Net(f"{op} {direction}", f"{op} x w r > {' '.join(out)}", {"x": ("t", "n", 3)}, constants, opset=11,
                      outputs=out, sizes=sizes, attributes={0: own})
            states = {"i": (count, "n", 5), **({"j": (count, "n", 5)} if op == "LSTM" else {})}
            yield Net(f"{op} {direction} with states", f"{op} x w r c _ {' '.join(states)} > {' '.join(out)}",
                      {"x": ("t", "n", 3), **states}, constants, opset=17, outputs=out, sizes=sizes, attributes={0: own})


def shapes():
    image = {"x": ("n", 4, "t")}
    sizes = ({"n": 1, "t": 3}, {"n": 2, "t": 8})
    dims = {"zero": longs(0), "one": longs(1), "two": longs(2), "rest": longs(-1), "half": longs(2)}
    yield Net("Shape", "Shape x > y;Size x > z", image, sizes=sizes, outputs=("y", "z"))
    yield Net("Shape between", "Shape x > y", image, sizes=sizes, attributes={0: {"start": -2}})
    yield Net("heads", "Shape x > s;Gather s i > n;Gather s j > t;Unsqueeze n ax > a;Unsqueeze t ax > b;"
              "Concat a h rest b > z;Reshape x z > y", image, {"i": longs(0)[0], "j": longs(2)[0], "ax": longs(0), "h": longs(2), **dims},
              sizes=sizes, attributes={5: {"axis": 0}})
    yield Net(
        "rows of a smaller image", "Conv x w > c;Transpose c > d;Shape d > s;Slice s zero two > nt;Concat nt rest > z;Reshape d z > r;"
        "MatMul r m > y", {"x": ("n", 1, "t", 6)}, {"w": floats(3, 1, 3, 3), "m": floats(12, 2), **dims}, sizes=sizes,
        attributes={1: {"perm": [0, 2, 3, 1]}, 4: {"axis": 0}})
    yield Net("halves", "Shape x > s;Slice s two three > t;Div t half > u;Slice x zero u two > y;Slice x u t two > z", image,
              {**dims, "three": longs(3)}, sizes=sizes, outputs=("y", "z"))
    yield Net("all in one", "Shape x > s;ReduceProd s > p;Unsqueeze p zero > q;Reshape x q > y", image, dims, opset=13,
              sizes=sizes, attributes={1: {"keepdims": 0}})
    yield Net("positions", "Shape x > s;Gather s j > t;Range nought t step > r;Gather table r > y", image,
              {"j": longs(2)[0], "nought": longs(0)[0], "step": longs(1)[0], "table": floats(9, 3)}, sizes=sizes)
    yield Net("centres", "Shape x > s;Gather s j > t;Cast t > u;Range nought u step > r;Add r half > y", image,
              {"j": longs(2)[0], "nought": one(0), "step": one(1), "half": one(0.5)}, sizes=sizes, attributes={2: {"to": T.FLOAT}})
    yield Net("filled", "Shape x > s;ConstantOfShape s > c;Add x c > y", image, sizes=sizes,
              attributes={1: {"value": onnx.numpy_helper.from_array(np.float32([2.5]))}})
    yield Net("expanded as told", "Shape x > s;ConstantOfShape r > c;Mul c minus > m;Equal e m > q;Where q c e > w;Expand x w > y",
              {"x": ("n", 1, "t")}, {"r": longs(3), "minus": longs(-1), "e": longs(-1, 5, -1)}, sizes=sizes,
              attributes={1: {"value": onnx.numpy_helper.from_array(longs(1))}})
    yield Net("grown", "Shape x > s;Cast s > f;Mul f k > g;Cast g > z;Slice z two three > w;Concat a w > v;Expand e v > y", image,
              {**dims, "k": np.float32([1, 1, 2]), "three": longs(3), "a": longs(2), "e": floats(2, 1)}, sizes=sizes,
              attributes={1: {"to": T.FLOAT}, 3: {"to": T.INT64}, 5: {"axis": 0}})
    yield Net("scaled by a size", "Shape x > s;Gather s j > t;Cast t > u;Sqrt u > v;Div x v > y", image, {"j": longs(2)[0]},
              sizes=sizes, attributes={2: {"to": T.FLOAT}})
    yield Net("a mask of lengths", "Shape m > s;Unsqueeze m ax > u;Cast u > f;Sub one f > g;Mul g far > h;Add x h > y",
              {"x": ("n", 2, "t"), "m:l": ("n", "t")}, {"ax": longs(1), "one": one(1), "far": one(-10000)}, sizes=sizes,
              draw={"m": lambda shape: DICE.integers(0, 2, shape)}, attributes={2: {"to": T.FLOAT}})
    yield Net("padded by sizes", "Shape x > s;Slice s two three > t;Concat z4 t one > p;Pad x p > y", image,
              {**dims, "three": longs(3), "z4": longs(0, 0, 0, 0)}, opset=13, sizes=sizes, attributes={2: {"axis": 0}})
    yield Net("constants", "Constant > a;Constant > b;Constant > c;Mul x a > d;Add d b > e;Reshape e c > y", image, sizes=sizes,
              attributes={0: {"value_float": 2.0}, 1: {"value_floats": [1.0]}, 2: {"value_ints": [-1, 2]}})


def places():
    def ties(shape):
        return np.round(floats(*shape))
    for op in ("ArgMax", "ArgMin"):
        for opset, more in ((7, {}), (13, {"select_last_index": 1}), (12, {"keepdims": 0})):
            for axis in (0, 1, -1):
                yield Net(f"{op} {axis} {more}", f"{op} x > y", {"x": (3, "n", 6)}, opset=opset, draw={"x": ties},
                          attributes={0: {"axis": axis, **more}})
        yield Net(op, f"{op} x > y", {"x": (3, "n")}, opset=13, draw={"x": ties}, attributes={0: {"axis": 1}})
        for first in (0, 1, 3, 7):
            for last in (0, 1):
                yield Net(f"{op} of odd ones", f"{op} x > y", {"x": ("n", 16)}, opset=13,
                          attributes={0: {"axis": 1, "select_last_index": last}},
                          draw={"x": lambda shape, first=first: np.resize(np.roll(ODD, first), shape)})
    yield plain("CumSum", ("n", 3, 4), np.array(1), opset=11)
    yield Net("positions", "Equal i p > e;Not e > n;Cast n > m;CumSum m ax > s;Mul s m > t;Add t p > q;Gather w q > y",
              {"i:l": ("n", "t")}, {"p": longs(1)[0], "ax": np.array(1, np.int32), "w": floats(9, 2)}, opset=13,
              sizes=({"n": 1, "t": 3}, {"n": 2, "t": 7}), attributes={2: {"to": T.INT64}})
    for axis in (-1, 1):
        yield Net("OneHot", "OneHot i d v > y", {"i:l": ("n", 3)}, {"d": np.array(4), "v": np.float32([-1, 2])}, opset=11,
                  attributes={0: {"axis": axis}})
    for upper in (0, 1):
        for k in (-1, 0, 2):
            yield plain("Trilu", ("n", 4, 5), np.array(k), opset=14, upper=upper)
    yield plain("Trilu", ("n", 4, 4), opset=14)


class FormsTest(Folders):
    def serve(self, net):
        folder = self.base / "m" / "1"
        folder.mkdir(parents=True)
        onnx.save(net.model, folder / "model.onnx")
        return Server(*self.flags("m"), ENGINE)

    def test_an_index_out_of_range_is_an_error_and_no_other_row(self):
        with self.serve(Net("ids", "Gather t i > y", {"i:l": ("n",)}, {"t": np.arange(4, dtype=np.float32)})) as server:
            client = self.connect(server)
            self.assertEqual(client.predict("m", i=longs(3, -4))["y"].tolist(), [3, 0])
            for odd in (4, -5, 2**31 - 1, 2**32, 2**32 + 1, -2**63):
                with self.subTest(odd), self.assertRaises(grpc.RpcError) as caught:
                    client.predict("m", i=longs(1, odd))
                self.assertEqual(caught.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)

    def test_sizes_that_do_not_fit_are_errors(self):
        net = Net("small", "Conv x w > c;MaxPool c > p;Add p b > y", {"x": ("n", 1, "h", 8), "b": ("m", 1, 1, 1)},
                  {"w": floats(1, 1, 3, 3)}, attributes={1: {"kernel_shape": [2, 2], "strides": [2, 2]}})
        with self.serve(net) as server:
            client = self.connect(server)
            image = floats(2, 1, 9, 8)
            self.assertEqual(client.predict("m", x=image, b=floats(1, 1, 1, 1))["y"].shape, (2, 1, 3, 3))
            self.assertEqual(client.predict("m", x=image[:0], b=floats(1, 1, 1, 1))["y"].shape, (0, 1, 3, 3))
            # Too small for the window, none that broadcasts, and nothing left for the second window.
            for x, b in ((floats(2, 1, 2, 8), 1), (image, 3), (floats(1, 1, 3, 8), 1)):
                with self.subTest(x.shape), self.assertRaises(grpc.RpcError) as caught:
                    client.predict("m", x=x, b=floats(b, 1, 1, 1))
                self.assertEqual(caught.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)

    def test_letters_of_an_equation_have_one_size(self):
        net = Net("stack", "Einsum a b > y", {"a": ("n", 2, "i"), "b": ("m", "j", 3)}, opset=12,
                  attributes={0: {"equation": "nri,nic->nrc"}})
        with self.serve(net) as server:
            client = self.connect(server)
            self.assertEqual(client.predict("m", a=floats(4, 2, 6), b=floats(4, 6, 3))["y"].shape, (4, 2, 3))
            with self.assertRaises(grpc.RpcError) as caught:
                client.predict("m", a=floats(4, 2, 6), b=floats(6, 4, 3))
            self.assertEqual(caught.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)

    def test_a_small_request_for_much_memory_is_refused(self):
        net = Net("wide", "Shape x > s;Mul s s > q;Mul q q > z;Expand x z > y", {"x": ("n",)})
        with self.serve(net) as server:
            client = self.connect(server)
            self.assertEqual(client.predict("m", x=one([1]))["y"].shape, (1,))
            for rows, code in ((300, grpc.StatusCode.INVALID_ARGUMENT), (70000, grpc.StatusCode.INVALID_ARGUMENT)):
                with self.subTest(rows), self.assertRaises(grpc.RpcError) as caught:
                    client.predict("m", x=np.zeros(rows, np.float32))
                self.assertIn(caught.exception.code(), (code, grpc.StatusCode.RESOURCE_EXHAUSTED))

    def hold(self, nets):
        nets = {f"m{at}": net for at, net in enumerate(nets)}
        paths = {}
        for name, net in nets.items():
            folder = self.base / name / "1"
            folder.mkdir(parents=True)
            onnx.save(net.model, folder / "model.onnx")
            paths[name] = folder.parent
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        with Server(self.config(**paths), ENGINE, "--max_num_load_retries=0", "--startup_wait=90s", seconds=120) as server:
            client = self.connect(server)
            for name, net in nets.items():
                with self.subTest(net.name):
                    session = onnxruntime.InferenceSession(net.model.SerializeToString(), options)
                    for given in net.given():
                        wanted = session.run(list(net.outputs), given)
                        answer = client.predict(name, **given)
                        for key, want in zip(net.outputs, wanted):
                            got = answer[key]
                            self.assertEqual((got.shape, got.dtype), (want.shape, want.dtype))
                            np.testing.assert_allclose(got, want, rtol=2e-5, atol=1e-5)

    def test_elements(self):
        self.hold(elements())

    def test_reductions_and_normalisations(self):
        self.hold(reductions())

    def test_windows(self):
        self.hold(windows())

    def test_parts(self):
        self.hold(parts())

    def test_places(self):
        self.hold(places())

    def test_resizing(self):
        self.hold(resizing())

    def test_products_and_recurrent_layers(self):
        self.hold(products())

    def test_shapes_that_the_graph_computes(self):
        self.hold(shapes())


if __name__ == "__main__":
    unittest.main()
