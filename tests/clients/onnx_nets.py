"""Small networks of common families as ONNX files, written as exporters write them, with random weights."""

import numpy as np
import onnx
import onnx.numpy_helper
from onnx import TensorProto as T
from onnx import helper as h


class Net:
    """A graph that grows by calls: each gives the name of what it computes."""

    def __init__(self, opset, inputs, draws):
        self.opset, self.inputs, self.draws = opset, inputs, draws
        self.nodes, self.constants, self.outputs = [], [], []
        self.dice = np.random.default_rng(5)

    def __call__(self, op, *inputs, outputs=1, **attributes):
        names = [f"v{len(self.nodes)}_{at}" for at in range(outputs)]
        read = [self.constant(own) if not isinstance(own, str) else own for own in inputs]
        self.nodes.append(h.make_node(op, read, names, **attributes))
        return names if outputs > 1 else names[0]

    def constant(self, value):
        value = np.asarray(value)
        value = value.astype(np.float32) if value.dtype == np.float64 else value
        name = f"c{len(self.constants)}"
        self.constants.append(onnx.numpy_helper.from_array(value, name))
        return name

    def weights(self, *shape):
        return self.dice.normal(size=shape).astype(np.float32) / np.float32(np.sqrt(np.prod(shape[1:]) or 1))

    def conv(self, x, channels, features, kernel, group=1, **attributes):
        own = {"kernel_shape": [kernel, kernel], "group": group, **attributes}
        if "auto_pad" not in own:
            own.setdefault("pads", [kernel // 2] * 4)
        return self("Conv", x, self.weights(features, channels // group, kernel, kernel), self.weights(features, 1)[:, 0], **own)

    def norm(self, x, features):
        moments = [self.weights(features, 1)[:, 0] for _ in range(3)] + [np.abs(self.weights(features, 1)[:, 0]) + 0.5]
        return self("BatchNormalization", x, *moments, epsilon=1e-5)

    def linear(self, x, channels, features):
        return self("Add", self("MatMul", x, self.weights(channels, features)), self.weights(features, 1)[:, 0])

    def size(self, x, axis):
        """As PyTorch asks for one."""
        return self("Gather", self("Shape", x), np.array(axis, np.int64), axis=0)

    def shape(self, *sizes):
        """Of sizes that are computed and such that are not."""
        axes = np.array([0], np.int64)
        parts = [np.array([own], np.int64) if isinstance(own, int) else self("Unsqueeze", own, axes) for own in sizes]
        return self("Concat", *parts, axis=0)

    def content(self):
        ends = [h.make_tensor_value_info(name, dtype, shape) for name, (dtype, shape) in self.inputs.items()]
        outs = [onnx.ValueInfoProto(name=name) for name in self.outputs]
        model = h.make_model(h.make_graph(self.nodes, "g", ends, outs, self.constants),
                             opset_imports=[h.make_opsetid("", self.opset)], ir_version=8)
        del model.graph.output[:]
        model.graph.output.extend(h.make_tensor_value_info(name, T.FLOAT, None) for name in self.outputs)
        return model.SerializeToString()

    def given(self):
        for shapes in self.draws:
            values = {}
            for (name, (dtype, _)), shape in zip(self.inputs.items(), shapes):
                values[name] = self.dice.random(shape).astype(np.float32) if dtype == T.FLOAT else \
                    self.dice.integers(0, 2 if name == "mask" else 30, shape)
            yield values


def images(opset, *shapes, dims=("n", 3, "h", "w")):
    return Net(opset, {"x": (T.FLOAT, dims)}, [[shape] for shape in shapes])


def resnet():
    """Of torchvision: a basic block with and without a projection."""
    g = images(13, (1, 3, 32, 32), (2, 3, 45, 37))
    x = g("Relu", g.norm(g.conv("x", 3, 8, 7, strides=[2, 2]), 8))
    x = g("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    for channels, features, stride in ((8, 8, 1), (8, 16, 2)):
        y = g("Relu", g.norm(g.conv(x, channels, features, 3, strides=[stride] * 2), features))
        y = g.norm(g.conv(y, features, features, 3), features)
        if stride > 1:
            x = g.norm(g.conv(x, channels, features, 1, strides=[stride] * 2), features)
        x = g("Relu", g("Add", y, x))
    x = g("Flatten", g("GlobalAveragePool", x), axis=1)
    g.outputs = [g("Gemm", x, g.weights(10, 16), g.weights(10, 1)[:, 0], transB=1, alpha=1.0, beta=1.0)]
    return g


def mobilenet(version):
    """Inverted residuals, with `relu6`; of version 3 hard activations and gates."""
    g = images(14 if version == 3 else 11, (1, 3, 33, 40), (3, 3, 32, 32))

    def act(x):
        return g("HardSwish", x) if version == 3 else g("Clip", x, np.float32(0), np.float32(6))

    x = act(g.norm(g.conv("x", 3, 8, 3, strides=[2, 2]), 8))
    for stride in (2, 1):
        y = act(g.norm(g.conv(x, 8, 24, 1), 24))
        y = act(g.norm(g.conv(y, 24, 24, 3, group=24, strides=[stride] * 2), 24))
        if version == 3:
            gate = g("Relu", g.conv(g("GlobalAveragePool", y), 24, 8, 1))
            y = g("Mul", y, g("HardSigmoid", g.conv(gate, 8, 24, 1), alpha=1 / 6))
        y = g.norm(g.conv(y, 24, 8, 1), 8)
        x = g("Add", x, y) if stride == 1 else y
    x = g("ReduceMean", x, axes=[2, 3], keepdims=0)
    g.outputs = [g("Softmax", g.linear(x, 8, 6), axis=1)]
    return g


def efficientnet():
    """With padding that follows from open sizes, as of Keras by tf2onnx."""
    g = images(15, (1, 3, 30, 41), (2, 3, 24, 24))
    x = g.conv("x", 3, 8, 3, auto_pad="SAME_UPPER", strides=[2, 2])
    x = g("Mul", x, g("Sigmoid", x))
    y = g.conv(x, 8, 8, 5, group=8, auto_pad="SAME_UPPER", strides=[2, 2])
    y = g("Mul", y, g("Sigmoid", y))
    gate = g("ReduceMean", y, axes=[2, 3], keepdims=1)
    y = g("Mul", y, g("Sigmoid", g.conv(gate, 8, 8, 1)))
    g.outputs = [g("Squeeze", g("GlobalAveragePool", g.conv(y, 8, 12, 1)), np.array([2, 3]))]
    return g


def attention(g, x, width, heads, mask=None):
    """Of PyTorch: sizes computed one by one, keys turned, scores scaled."""
    rows, length = g.size(x, 0), g.size(x, 1)

    def split(own, order):
        shape = g.shape(rows, length, heads, width // heads)
        return g("Transpose", g("Reshape", g.linear(own, width, width), shape), perm=order)

    q, k, v = split(x, [0, 2, 1, 3]), split(x, [0, 2, 3, 1]), split(x, [0, 2, 1, 3])
    scores = g("Div", g("MatMul", q, k), np.float32(np.sqrt(width // heads)))
    if mask:
        scores = g("Add", scores, mask)
    mixed = g("Transpose", g("MatMul", g("Softmax", scores, axis=-1), v), perm=[0, 2, 1, 3])
    return g.linear(g("Reshape", mixed, g.shape(rows, length, width)), width, width)


def layer_norm(g, x, width):
    """As it was written before it was one operator."""
    rest = g("Sub", x, g("ReduceMean", x, axes=[-1]))
    variance = g("ReduceMean", g("Pow", rest, np.float32(2)), axes=[-1])
    x = g("Div", rest, g("Sqrt", g("Add", variance, np.float32(1e-12))))
    return g("Add", g("Mul", x, g.weights(width, 1)[:, 0]), g.weights(width, 1)[:, 0])


def gelu(g, x):
    inner = g("Add", g("Erf", g("Div", x, np.float32(np.sqrt(2)))), np.float32(1))
    return g("Mul", g("Mul", x, inner), np.float32(0.5))


def bert():
    g = Net(14, {"ids": (T.INT64, ("n", "t")), "mask": (T.INT64, ("n", "t")), "kinds": (T.INT64, ("n", "t"))},
            [[(1, 7)] * 3, [(3, 16)] * 3])
    width, table = 32, np.arange(64, dtype=np.int64)[None]
    mask = g("Cast", g("Unsqueeze", g("Unsqueeze", "mask", np.array([1])), np.array([2])), to=T.FLOAT)
    mask = g("Mul", g("Sub", np.float32(1), mask), np.float32(-3e38))
    length = g("Unsqueeze", g.size("ids", 1), np.array([0]))
    places = g("Slice", table, np.array([0]), length, np.array([1]), np.array([1]))
    kinds = g("Gather", g.weights(30, width), "kinds")
    x = g("Add", g("Gather", g.weights(30, width), "ids"), kinds)
    x = g("Add", x, g("Gather", g.weights(64, width), places))
    x = layer_norm(g, x, width)
    for _ in range(2):
        x = layer_norm(g, g("Add", x, attention(g, x, width, 4, mask)), width)
        y = g.linear(gelu(g, g.linear(x, width, 64)), 64, width)
        x = layer_norm(g, g("Add", x, y), width)
    first = g("Gather", x, np.array(0), axis=1)
    pooled = g("Tanh", g("Gemm", first, g.weights(width, width), g.weights(width, 1)[:, 0], transB=1))
    g.outputs = [x, pooled]
    return g


def vit():
    """Patches, a token before them that is expanded to the batch, and the packed products of PyTorch."""
    g = images(17, (1, 3, 32, 32), (2, 3, 32, 32), dims=("n", 3, 32, 32))
    width, heads = 24, 3
    x = g.conv("x", 3, width, 8, strides=[8, 8], pads=[0] * 4)
    rows = g.size(x, 0)
    x = g("Transpose", g("Reshape", x, g.shape(rows, width, -1)), perm=[0, 2, 1])
    ones = g("ConstantOfShape", np.array([3]), value=onnx.numpy_helper.from_array(np.array([1])))
    wanted = g.shape(rows, -1, -1)
    wanted = g("Where", g("Equal", wanted, g("Mul", ones, np.array(-1))), ones, wanted)
    x = g("Concat", g("Expand", g.weights(1, 1, width), wanted), x, axis=1)
    x = g("Add", x, g.weights(1, 17, width))
    for _ in range(2):
        y = g("LayerNormalization", x, g.weights(width, 1)[:, 0], g.weights(width, 1)[:, 0], axis=-1, epsilon=1e-6)
        length = g.size(y, 1)
        packed = g("Reshape", g.linear(y, width, 3 * width), g.shape(rows, length, 3, heads, width // heads))
        packed = g("Transpose", packed, perm=[2, 0, 3, 1, 4])
        q, k, v = (g("Gather", packed, np.array(at), axis=0) for at in range(3))
        scores = g("MatMul", g("Mul", q, np.float32(8 ** -0.5)), g("Transpose", k, perm=[0, 1, 3, 2]))
        y = g("Transpose", g("MatMul", g("Softmax", scores, axis=-1), v), perm=[0, 2, 1, 3])
        x = g("Add", x, g.linear(g("Reshape", y, g.shape(rows, length, width)), width, width))
        y = g("LayerNormalization", x, g.weights(width, 1)[:, 0], g.weights(width, 1)[:, 0], axis=-1, epsilon=1e-6)
        x = g("Add", x, g.linear(gelu(g, g.linear(y, width, 48)), 48, width))
    g.outputs = [g.linear(g("Gather", x, np.array(0), axis=1), width, 5)]
    return g


def unet(way):
    """Down and up again, by resizing to the size of the other branch or by transposed convolutions."""
    g = images(13, (1, 3, 32, 48), (2, 3, 16, 24))
    skips, x, channels = [], "x", 3
    for features in (8, 16):
        x = g("Relu", g.norm(g.conv(x, channels, features, 3), features))
        skips.append((x, features))
        x, channels = g("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]), features
    x = g("Relu", g.conv(x, 16, 16, 3))
    for skip, features in reversed(skips):
        if way == "resize":
            size = g("Slice", g("Shape", skip), np.array([2]), np.array([4]), np.array([0]))
            rows = g("Slice", g("Shape", x), np.array([0]), np.array([2]), np.array([0]))
            x = g("Resize", x, "", "", g("Concat", rows, size, axis=0), mode="linear",
                  coordinate_transformation_mode="half_pixel")
        else:
            x = g("ConvTranspose", x, g.weights(16, 16, 2, 2), g.weights(16, 1)[:, 0], strides=[2, 2], kernel_shape=[2, 2])
        x = g("Concat", skip, x, axis=1)
        x = g("Relu", g.conv(x, features + 16, 16, 3))
    g.outputs = [g("Sigmoid", g.conv(x, 16, 1, 1))]
    return g


def yolo():
    """Of YOLOv5 and v8: focus, split blocks, spatial pyramid pooling, resizing, grids and a decoded head."""
    g = images(13, (1, 3, 64, 96), (2, 3, 32, 32))

    def silu(x):
        return g("Mul", x, g("Sigmoid", x))

    def cut(x, axis, start, step):
        return g("Slice", x, np.array([start]), np.array([2**63 - 1]), np.array([axis]), np.array([step]))

    quarters = [cut(cut("x", 2, a, 2), 3, b, 2) for b in (0, 1) for a in (0, 1)]
    x = silu(g.conv(g("Concat", *quarters, axis=1), 12, 16, 3))
    low = silu(g.conv(x, 16, 16, 3, strides=[2, 2]))
    a, b = g("Split", low, outputs=2, axis=1)
    low = g("Concat", a, b, g("Add", b, silu(g.conv(b, 8, 8, 3))), axis=1)
    x = silu(g.conv(low, 24, 16, 3, strides=[2, 2]))
    pools = [x]
    for _ in range(2):
        pools.append(g("MaxPool", pools[-1], kernel_shape=[5, 5], strides=[1, 1], pads=[2] * 4))
    x = silu(g.conv(g("Concat", *pools, axis=1), 48, 16, 1))
    up = g("Resize", x, "", np.float32([1, 1, 2, 2]), coordinate_transformation_mode="asymmetric", mode="nearest",
           nearest_mode="floor")
    up = g.conv(silu(g.conv(g("Concat", up, low, axis=1), 40, 16, 3)), 16, 14, 1)
    rows, high, wide = g.size(up, 0), g.size(up, 2), g.size(up, 3)
    up = g("Transpose", g("Reshape", up, g.shape(rows, 2, 7, high, wide)), perm=[0, 1, 3, 4, 2])
    up = g("Sigmoid", up)
    columns = g("Range", np.float32(0), g("Cast", wide, to=T.FLOAT), np.float32(1))
    lines = g("Range", np.float32(0), g("Cast", high, to=T.FLOAT), np.float32(1))
    columns = g("Expand", g("Reshape", columns, np.array([1, -1])), g("Reshape", g.shape(high, wide), np.array([-1])))
    lines = g("Expand", g("Reshape", lines, np.array([-1, 1])), g.shape(high, wide))
    grid = g("Concat", g("Reshape", columns, g.shape(1, 1, high, wide, 1)), g("Reshape", lines, g.shape(1, 1, high, wide, 1)),
             axis=4)
    centre = g("Slice", up, np.array([0]), np.array([2]), np.array([4]))
    size = g("Slice", up, np.array([2]), np.array([4]), np.array([4]))
    rest = g("Slice", up, np.array([4]), np.array([2**63 - 1]), np.array([4]))
    centre = g("Mul", g("Add", g("Sub", g("Mul", centre, np.float32(2)), np.float32(0.5)), grid), np.float32(8))
    size = g("Mul", g("Pow", g("Mul", size, np.float32(2)), np.float32(2)), g.weights(1, 2, 1, 1, 2))
    boxes = g("Concat", centre, size, rest, axis=4)
    g.outputs = [g("Reshape", boxes, g.shape(rows, -1, 7))]
    return g


NETS = {"resnet": resnet(), "mobilenet_v2": mobilenet(2), "mobilenet_v3": mobilenet(3), "efficientnet": efficientnet(),
        "bert": bert(), "vit": vit(), "unet_resize": unet("resize"), "unet_transposed": unet("transposed"), "yolo": yolo()}
