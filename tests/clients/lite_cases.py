"""Operators of TensorFlow Lite in the forms that OpenVINO is given them: functions that the converter makes one
operator of each, and what they are fed.

Owns the cases. May not know: how they are served. Every operator of the table in
`crates/engines/src/openvino/lite/table.rs` stands in one, with each dtype that its row allows.
"""

import dataclasses

import numpy as np
import tensorflow as tf

F, I, L, B = tf.float32, tf.int32, tf.int64, tf.bool


@dataclasses.dataclass
class Case:
    name: str
    function: object
    specs: list
    feeds: list  # of requests, each a list of arrays


CASES = []


def dice(name):
    return np.random.default_rng(sum(name.encode()))


def weights(*shape):
    return tf.constant(np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32))


def case(name, function, *shapes, of=F, low=-5.0, high=5.0, feeds=None):
    """A case fed with numbers between `low` and `high`, where they are floats; whole numbers are of 32 bits and
    some lie near to each other, which floats cannot tell apart. Open sizes are 1 and then 3."""
    dtypes = of if isinstance(of, list) else [of] * len(shapes)
    specs = [tf.TensorSpec(shape, dtype, f"a{n}") for n, (shape, dtype) in enumerate(zip(shapes, dtypes))]

    def fill(rows, number, spec):
        generator = dice(f"{name} {rows} {number}")
        shape = [rows if size is None else size for size in spec.shape]
        if spec.dtype == B:
            return generator.random(shape) > 0.5
        if spec.dtype in (tf.uint8, tf.int8):
            return generator.integers(0, 100, shape).astype(spec.dtype.as_numpy_dtype)
        if spec.dtype == I:
            wide = generator.choice([0, 1, -1, 7, 1 << 24, 1 << 30, -(1 << 30)], shape)
            return (wide + generator.integers(-2, 3, shape)).astype(np.int32)
        return generator.uniform(low, high, shape).astype(spec.dtype.as_numpy_dtype)

    if feeds is None:
        is_open = any(None in spec.shape for spec in specs)
        feeds = [[fill(rows, n, spec) for n, spec in enumerate(specs)]
                 for rows in ((1, 3) if is_open else (2,))]
    CASES.append(Case(name, function, specs, feeds))


IMAGE = [2, 6, 5, 3]
OPEN = [None, 6]

for name, function in {
        "ABS": tf.abs, "COS": tf.cos, "ELU": tf.nn.elu, "EXP": tf.exp, "GELU": tf.nn.gelu,
        "GELU tanh": lambda x: tf.nn.gelu(x, True), "HARD_SWISH": lambda x: x * tf.nn.relu6(x + 3) / 6,
        "L2_NORMALIZATION": lambda x: tf.math.l2_normalize(x, -1),
        "LEAKY_RELU": lambda x: tf.nn.leaky_relu(x, 0.3), "LOGISTIC": tf.sigmoid,
        "LOG_SOFTMAX": tf.nn.log_softmax, "NEG": tf.negative, "RELU": tf.nn.relu, "RELU6": tf.nn.relu6,
        "SIGN": tf.sign, "SIN": tf.sin, "SOFTMAX": tf.nn.softmax, "SQUARE": tf.square,
        "TANH": tf.tanh, "SHAPE": tf.shape, "SHAPE int64": lambda x: tf.shape(x, L),
        "ZEROS_LIKE": tf.zeros_like}.items():
    case(name, function, OPEN)
case("ROUND", tf.round, [8], feeds=[[np.float32([0.5, 1.5, 2.5, -0.5, -1.5, 0.49, 7, -2.51])]])
for name, function in {"LOG": tf.math.log, "SQRT": tf.sqrt}.items():
    case(name, function, IMAGE, low=0.1)
case("RSQRT", lambda x: tf.math.rsqrt(x * x + 1e-3), IMAGE)
case("PRELU", lambda x: tf.nn.relu(x) + -tf.constant([[[0.2, 0.3, 0.4]]]) * tf.nn.relu(-x), [1, 6, 5, 3])
for name, function in {"ABS": tf.abs, "NEG": tf.negative, "SIGN": tf.sign}.items():
    case(f"{name} int32", function, OPEN, of=I)

for name, function in {"ADD": tf.add, "DIV": tf.divide, "MAXIMUM": tf.maximum, "MINIMUM": tf.minimum,
                       "MUL": tf.multiply, "SQUARED_DIFFERENCE": tf.math.squared_difference,
                       "SUB": tf.subtract}.items():
    case(name, function, OPEN, OPEN)
    case(f"{name} over rows", function, IMAGE, [3])
    if name != "DIV":
        case(f"{name} int32", function, OPEN, OPEN, of=I)
case("POW", tf.pow, OPEN, OPEN, low=0.5)
case("ADD_N", lambda x, y: tf.add_n([x, y, x]), [4, 6], [4, 6])
case("ADD_N int32", lambda x, y: tf.add_n([x, y, x]), [4, 6], [4, 6], of=I)
for name, function in {"EQUAL": tf.equal, "GREATER": tf.greater, "GREATER_EQUAL": tf.greater_equal,
                       "LESS": tf.less, "LESS_EQUAL": tf.less_equal, "NOT_EQUAL": tf.not_equal}.items():
    pairs = np.float32([[1, 2, 3], [3, 2, 1]]), np.float32([[1, 3, 2], [3, 2, 2]])
    case(name, function, [2, 3], [2, 3], feeds=[list(pairs)])
    case(f"{name} int32", lambda x, function=function: function(x, tf.constant([7, 1 << 23, 0])), [None, 3],
         of=I)
for name, function in {"LOGICAL_AND": tf.logical_and, "LOGICAL_OR": tf.logical_or}.items():
    case(name, function, OPEN, OPEN, of=B)
case("LOGICAL_NOT", tf.logical_not, OPEN, of=B)
case("REDUCE_ANY", lambda x: tf.reduce_any(x, 1), OPEN, of=B)
case("REDUCE_ALL", lambda x: tf.reduce_all(x, 1, True), OPEN, of=B)

ACTIVATIONS = {"none": tf.identity, "RELU": tf.nn.relu, "RELU6": tf.nn.relu6,
               "RELU_N1_TO_1": lambda x: tf.minimum(tf.maximum(x, -1.0), 1.0)}
for name, after in ACTIVATIONS.items():
    for padding in ("SAME", "VALID"):
        label = f"{padding} {name}"
        case(f"CONV_2D {label}", lambda x, after=after, padding=padding: after(
            tf.nn.conv2d(x, weights(3, 3, 3, 4), 2, padding) + weights(4)), IMAGE)
        case(f"DEPTHWISE_CONV_2D {label}", lambda x, after=after, padding=padding: after(
            tf.nn.depthwise_conv2d(x, weights(3, 3, 3, 2), [1, 2, 2, 1], padding) + weights(6)), IMAGE)
        case(f"MAX_POOL_2D {label}", lambda x, after=after, padding=padding: after(
            tf.nn.max_pool2d(x, 3, 2, padding)), IMAGE)
        case(f"AVERAGE_POOL_2D {label}", lambda x, after=after, padding=padding: after(
            tf.nn.avg_pool2d(x, 3, 2, padding)), IMAGE)
    case(f"FULLY_CONNECTED {name}", lambda x, after=after: after(x @ weights(6, 4) + weights(4)), OPEN)
    for op, function in {"ADD": tf.add, "SUB": tf.subtract, "MUL": tf.multiply, "DIV": tf.divide}.items():
        case(f"{op} {name}", lambda x, y, after=after, function=function: after(function(x, y)), OPEN, OPEN,
             low=0.5)
case("FULLY_CONNECTED without bias", lambda x: tf.tensordot(x, weights(6, 4), 1), [2, 5, 6])
case("CONV_2D dilated", lambda x: tf.nn.conv2d(x, weights(2, 2, 3, 4), 1, "SAME", dilations=2), IMAGE)
case("CONV_2D in groups", lambda x: tf.nn.conv2d(x, weights(3, 3, 2, 6), 1, "SAME"), [1, 5, 5, 4])
case("CONV_2D over one axis", lambda x: tf.nn.conv1d(x, weights(3, 3, 4), 1, "SAME"), [2, 9, 3])
case("CONV_2D open", lambda x: tf.nn.conv2d(x, weights(3, 3, 3, 4), 1, "SAME"), [None, None, None, 3],
     feeds=[[np.ones((2, 7, 5, 3), np.float32)], [np.ones((1, 4, 4, 3), np.float32)]])
case("DEPTHWISE_CONV_2D dilated", lambda x: tf.nn.depthwise_conv2d(
    x, weights(2, 2, 3, 1), [1] * 4, "SAME", dilations=[2, 2]), IMAGE)
case("TRANSPOSE_CONV SAME", lambda x: tf.nn.conv2d_transpose(
    x, weights(3, 3, 4, 3), [2, 12, 10, 4], 2, "SAME"), IMAGE)
case("TRANSPOSE_CONV VALID", lambda x: tf.nn.conv2d_transpose(
    x, weights(3, 3, 4, 3), [2, 13, 11, 4], 2, "VALID") + weights(4), IMAGE)
case("CONV_3D", lambda x: tf.nn.conv3d(x, weights(2, 2, 2, 3, 4), [1] * 5, "SAME"), [1, 4, 5, 6, 3])
case("BATCH_MATMUL", tf.matmul, [None, 3, 4], [None, 4, 5])
case("BATCH_MATMUL turned", lambda x, y: tf.matmul(x, y, transpose_a=True, transpose_b=True), [2, 4, 3],
     [2, 5, 4])

for name, function in {"MEAN": tf.reduce_mean, "SUM": tf.reduce_sum, "REDUCE_MAX": tf.reduce_max,
                       "REDUCE_MIN": tf.reduce_min, "REDUCE_PROD": tf.reduce_prod}.items():
    case(name, lambda x, function=function: function(x, [1, 2]), IMAGE, high=2.0)
    case(f"{name} kept", lambda x, function=function: function(x, -1, True), IMAGE)
case("REDUCE_PROD int32", lambda x: tf.reduce_prod(x, 1), OPEN, of=I)
for name, function in {"REDUCE_MAX": tf.reduce_max, "REDUCE_MIN": tf.reduce_min}.items():
    case(f"{name} of sizes", lambda x, function=function: function(tf.shape(x)), [None, 6, 2])
case("SUM of sizes", lambda x: tf.reduce_sum(tf.shape(x)), [None, 6, 2])
case("FLOOR_DIV of sizes", lambda x: tf.shape(x) // 2, [None, 6, 3])
case("REVERSE_V2 of sizes", lambda x: tf.reverse(tf.shape(x), [0]), [None, 6, 2])
case("RANGE of sizes", lambda x: tf.range(tf.shape(x)[0]), OPEN)
case("REDUCE_PROD of sizes", lambda x: tf.reduce_prod(tf.shape(x)), [None, 6, 2])

TIES = [[np.float32([[1, 3, 3, 2, 3, 1], [0, 0, 0, 0, 0, 0]])], [np.float32([[-1, -3, -3, -2, -3, -1]])]]
for name, function in {"ARG_MAX": tf.argmax, "ARG_MIN": tf.argmin}.items():
    case(name, lambda x, function=function: function(x, 1), OPEN, feeds=TIES)
    case(f"{name} int32", lambda x, function=function: function(x, 1, I), OPEN, of=I)
case("TOPK_V2", lambda x: tf.math.top_k(x, 4), OPEN, feeds=TIES)
case("TOPK_V2 int32", lambda x: tf.math.top_k(x, 4), OPEN, of=I)
for dtype in (F, I):
    case(f"CUMSUM {dtype.name}", lambda x: tf.cumsum(x, 1), [4, 6], of=dtype)
    case(f"CUMSUM exclusive {dtype.name}", lambda x: tf.cumsum(x, 1, True, True), [4, 6], of=dtype)

for dtype in (F, I, B):
    label, of = dtype.name, dtype
    case(f"RESHAPE {label}", lambda x: tf.reshape(x, [-1, 3]), OPEN, of=of)
    case(f"TRANSPOSE {label}", lambda x: tf.transpose(x, [1, 0]), OPEN, of=of)
    case(f"CONCATENATION {label}", lambda x, y: tf.concat([x, y], 0), OPEN, OPEN, of=of)
    case(f"PACK {label}", lambda x, y: tf.stack([x, y], 1), OPEN, OPEN, of=of)
    case(f"UNPACK {label}", lambda x: tf.unstack(x, axis=1), [4, 3], of=of)
    case(f"SLICE {label}", lambda x: tf.slice(x, [0, 2], [-1, 3]), OPEN, of=of)
    case(f"STRIDED_SLICE {label}", lambda x: x[:, ::-2], OPEN, of=of)
    case(f"STRIDED_SLICE shrunk {label}", lambda x: x[tf.newaxis, 0, 1:], OPEN, of=of)
    case(f"STRIDED_SLICE last {label}", lambda x: x[..., -2:], OPEN, of=of)
    case(f"TILE {label}", lambda x: tf.tile(x, [2, 1]), OPEN, of=of)
    case(f"EXPAND_DIMS {label}", lambda x: tf.expand_dims(x, 1), OPEN, of=of)
    case(f"SQUEEZE {label}", lambda x: tf.squeeze(x, 1), [None, 1, None], of=of)
    case(f"GATHER {label}", lambda x: tf.gather(x, [[3, 0], [1, 5]], axis=1), OPEN, of=of)
    case(f"GATHER first {label}", lambda x: tf.gather(x, 0), OPEN, of=of)
    case(f"GATHER_ND {label}", lambda x: tf.gather_nd(x, [[3, 0], [1, 5]]), [4, 6], of=of)
    case(f"SELECT_V2 {label}", tf.where, [None, 1], OPEN, OPEN, of=[B, of, of])
    case(f"SELECT {label}", lambda c, x, y: tf.raw_ops.Select(condition=c, x=x, y=y), [4, 6], [4, 6], [4, 6],
         of=[B, of, of])
    case(f"BROADCAST_TO {label}", lambda x: tf.broadcast_to(x, [3, 4, 6]), [4, 6], of=of)
    case(f"FILL {label}", lambda x: tf.fill([2, 3], x), [], of=of)
    if dtype == B:
        continue
    case(f"SPLIT {label}", lambda x: tf.split(x, 3, 1), OPEN, of=of)
    case(f"SPLIT_V {label}", lambda x: tf.split(x, [1, 2, 3], 1), OPEN, of=of)
    case(f"PAD {label}", lambda x: tf.pad(x, [[1, 2], [0, 3]]), OPEN, of=of)
    case(f"PADV2 {label}", lambda x: tf.pad(x, [[1, 2], [0, 3]], constant_values=7), OPEN, of=of)
    case(f"MIRROR_PAD {label}", lambda x: tf.pad(x, [[1, 2], [0, 3]], "REFLECT"), [4, 6], of=of)
    case(f"MIRROR_PAD symmetric {label}", lambda x: tf.pad(x, [[1, 2], [0, 3]], "SYMMETRIC"), [4, 6], of=of)
    case(f"SPACE_TO_DEPTH {label}", lambda x: tf.nn.space_to_depth(x, 2), [1, 4, 6, 3], of=of)
    case(f"DEPTH_TO_SPACE {label}", lambda x: tf.nn.depth_to_space(x, 2), [1, 4, 6, 8], of=of)
    case(f"MATRIX_DIAG {label}", tf.linalg.diag, [2, 4], of=of)
case("ONE_HOT", lambda x: tf.one_hot(x, 4, 2.5, -1.0), [6], feeds=[[np.int32([0, 3, 4, -1, 2, 1 << 30])]],
     of=I)
case("ONE_HOT int32", lambda x: tf.one_hot(x, 4, (1 << 30) + 1, 1 << 30), [None], of=I)
case("SPACE_TO_BATCH_ND", lambda x: tf.space_to_batch(x, [2, 2], [[0, 0], [1, 0]]), IMAGE)
case("BATCH_TO_SPACE_ND", lambda x: tf.batch_to_space(x, [2, 2], [[0, 1], [1, 0]]), [8, 3, 3, 2])
case("REVERSE_V2", lambda x: tf.reverse(x, [1]), OPEN)
case("REVERSE_SEQUENCE", lambda x: tf.reverse_sequence(x, [2, 3], 1, 0), [2, 5])
for aligned, halves in ((False, False), (True, False), (False, True)):
    for size in ([9, 4], [12, 10], [3, 2]):
        corners = dict(align_corners=aligned, half_pixel_centers=halves)
        label = f"{size[0]} {aligned} {halves}"
        case(f"RESIZE_BILINEAR {label}", lambda x, size=size, corners=corners: tf.raw_ops.ResizeBilinear(
            images=x, size=size, **corners), IMAGE)
        if not halves:
            case(f"RESIZE_NEAREST_NEIGHBOR {label}",
                 lambda x, size=size, corners=corners: tf.raw_ops.ResizeNearestNeighbor(
                     images=x, size=size, **corners), IMAGE)
for source, target in ((I, F), (I, L), (I, B), (B, F), (B, I), (B, L), (F, B), (tf.uint8, F), (tf.int8, F)):
    case(f"CAST {source.name} {target.name}", lambda x, target=target: tf.cast(x, target), OPEN, of=source)
case("CAST int64 int32", lambda x: tf.cast(tf.argmax(x, 1), I), OPEN)
case("CAST int64 float32", lambda x: tf.cast(tf.argmax(x, 1), F), OPEN)

# Sizes that a run computes.
case("RESHAPE by sizes", lambda x: tf.reshape(x, [tf.shape(x)[0], 2, 3]), OPEN)
case("BROADCAST_TO by sizes", lambda x: tf.broadcast_to(tf.constant([1.5]), tf.shape(x)), OPEN)
case("FILL by sizes", lambda x: tf.fill(tf.shape(x), 3.0), OPEN)
case("STRIDED_SLICE by sizes", lambda x: x[:, :tf.shape(x)[1] // 2], OPEN)
case("TILE by sizes", lambda x: tf.tile(x, [tf.shape(x)[0], 1]), OPEN)
case("PAD by sizes", lambda x: tf.pad(x, [[0, tf.shape(x)[0]], [0, 0]]), OPEN)
case("RESIZE_BILINEAR by sizes", lambda x: tf.image.resize(x, tf.shape(x)[1:3] * 2), [None, None, None, 2],
     feeds=[[np.arange(24, dtype=np.float32).reshape(1, 3, 4, 2)]])
case("TRANSPOSE_CONV by sizes", lambda x: tf.nn.conv2d_transpose(
    x, weights(3, 3, 4, 3), [tf.shape(x)[0], 8, 8, 4], 2, "SAME"), [None, 4, 4, 3])
case("GATHER by ids", lambda ids: tf.gather(weights(20, 4), ids), [None, 5], of=I,
     feeds=[[np.int32([[0, 19, 7, 7, 3]])], [np.int32([[1, 2, 3, 4, 5], [19, 18, 0, 0, 9]])]])
# Ends that are no operator's.
case("ends", lambda x: (x, x + 1, tf.constant([1.5, 2.5])), OPEN)
case("an input without a use", lambda x, y: x + 1, OPEN, OPEN)
