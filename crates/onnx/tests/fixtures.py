"""Writes one small frozen graph per operator and case, with inputs and TensorFlow's own answers.

    python fixtures.py FOLDER

Each case is a folder: `graph.pb` (a serialized GraphDef), `case.txt` and raw little-endian arrays.
`case.txt` has lines of words:

    op NAME | dtype NAME | variant NAME | expect translated|refused
    feed TENSOR DTYPE SHAPE          declared; `?` is an open size, `scalar` rank 0
    fetch TENSOR
    run                              one set of arrays follows
    fails MESSAGE                    as well, but TensorFlow answers with this error
    in TENSOR DTYPE SHAPE FILE
    out TENSOR DTYPE SHAPE FILE
"""

import os
import shutil
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import numpy as np
import tensorflow as tf

import fixtures_compound
import fixtures_further
import fixtures_half

tf1 = tf.compat.v1
raw = tf.raw_ops
INF, NAN = float("inf"), float("nan")
CASES = []
SEED = [0]


def shape_text(shape):
    if shape is None:
        return "unknown"
    return ",".join("?" if n is None else str(n) for n in shape) if len(shape) else "scalar"


def case(op, variant, build, feeds, declared=None, runs=None, expect="translated", fails=()):
    """`feeds` are arrays; `declared` the shapes that the placeholders state (default: as fed, with
    an open first size); `runs` further lists of arrays, `fails` those that TensorFlow refuses."""
    CASES.append((op, variant, build, feeds, declared, runs or [], expect, fails))


def open_first(array):
    shape = list(np.shape(array))
    if shape:
        shape[0] = None
    return shape


def write(folder, op, variant, build, feeds, declared, runs, expect, fails):
    feeds = [np.asarray(a) for a in feeds]
    if declared is None:
        declared = [open_first(a) for a in feeds]
    with tf.Graph().as_default() as graph:
        holders = [
            tf1.placeholder(tf.as_dtype(a.dtype), d, name=f"x{i}")
            for i, (a, d) in enumerate(zip(feeds, declared))
        ]
        results = build(*holders)
        if not isinstance(results, (list, tuple)):
            results = [results]
        results = [tf.identity(r, name=f"y{i}") for i, r in enumerate(results)]
        config = tf1.ConfigProto()
        config.graph_options.optimizer_options.opt_level = -1
        config.graph_options.rewrite_options.disable_meta_optimizer = True
        answers = []
        with tf1.Session(graph=graph, config=config) as session:
            for arrays in [feeds] + [[np.asarray(a) for a in run] for run in runs]:
                answers.append((arrays, session.run(results, dict(zip(holders, arrays))), None))
            for arrays in fails:
                try:
                    session.run(results, dict(zip(holders, arrays)))
                except tf.errors.OpError as error:
                    answers.append((arrays, [], error.message.split("\n\t [[{{node")[0].splitlines()[-1]))
                else:
                    raise AssertionError("TensorFlow does not refuse it")
        definition = graph.as_graph_def()
    dtype = (tf.as_dtype(feeds[0].dtype) if feeds else results[0].dtype).name
    name = f"{op}.{dtype}.{variant}"
    path = os.path.join(folder, name)
    os.makedirs(path)
    with open(os.path.join(path, "graph.pb"), "wb") as file:
        file.write(definition.SerializeToString())
    lines = [f"op {op}", f"dtype {dtype}", f"variant {variant}", f"expect {expect}"]
    for holder, array, shape in zip(holders, feeds, declared):
        lines.append(f"feed {holder.name} {holder.dtype.name} {shape_text(shape)}")
    lines += [f"fetch {r.name}" for r in results]
    for number, (arrays, outputs, message) in enumerate(answers):
        lines.append("run" if message is None else f"fails {message}")
        named = [("in", h.name, a) for h, a in zip(holders, arrays)]
        named += [("out", r.name, o) for r, o in zip(results, outputs)]
        for kind, tensor, array in named:
            array = np.asarray(array)
            file = f"{number}.{kind}.{tensor.replace(':', '_').replace('/', '_')}"
            with open(os.path.join(path, file), "wb") as out:
                out.write(np.ascontiguousarray(array).tobytes())
            text = shape_text(array.shape)
            lines.append(f"{kind} {tensor} {tf.as_dtype(array.dtype).name} {text} {file}")
    with open(os.path.join(path, "case.txt"), "w") as file:
        file.write("\n".join(lines) + "\n")


def numbers(*shape, dtype=np.float32, low=-3.0, high=3.0):
    SEED[0] += 1
    values = np.random.default_rng(SEED[0]).uniform(low, high, shape)
    return values.astype(dtype)


# Zeros of both signs, ties, tiny, large, infinite and absent numbers.
EDGES = np.array(
    [[0.0, -0.0, 0.5, -0.5, 1.5, -1.5, 2.5, 1.0], [-1.0, 6.0, 7.0, 1e-6, -1e-6, 30.0, -30.0, 3.25]],
    np.float32,
)
SPECIAL = np.array([[NAN, INF, -INF, 0.0, -0.0, 1.0, -1.0, 100.0]], np.float32)
WHOLE = np.array([[0, 1, -1, 7, -7, 100], [30000, -30000, 12345, -12345, 2, 3]], np.int32)
# What the largest numbers of 32 bits give is more than 32 bits hold.
FULL = np.array([[2**31 - 1, -(2**31), 2**31 - 2, -(2**31) + 1]], np.int32)
LARGE = np.array([[0, 1, -1, 2**31, 2**40, -(2**33)], [3 * 10**9, -3, 12345, 2**53 + 1, 2, 3]], np.int64)
SMALL = np.array([[0, 1, -1, 7, -7, 100], [5, 4, 3, -9, 2, 3]], np.int64)

FLOAT_UNARY = """Abs Acos Asin Atan Ceil Cos Cosh Elu Erf Exp Floor IsFinite IsInf IsNan LeakyRelu Log
    Neg Reciprocal Relu Relu6 Rint Round Rsqrt Selu Sigmoid Sign Sin Sinh Softplus Softsign Sqrt
    Square Tan Tanh OnesLike ZerosLike""".split()
INT_UNARY = "Abs Neg Relu Relu6 Sign Square OnesLike ZerosLike".split()


def one(op, **attributes):
    function = getattr(raw, op)
    first = {"Elu": "features", "LeakyRelu": "features", "Relu": "features", "Relu6": "features",
             "Selu": "features", "Softplus": "features", "Softsign": "features"}.get(op, "x")
    return lambda x: function(**{first: x}, **attributes)


def two(op, **attributes):
    return lambda x, y: getattr(raw, op)(x=x, y=y, **attributes)


def unary_cases():
    for op in FLOAT_UNARY:
        domain = {"Log": (0.01, 9), "Sqrt": (0, 9), "Rsqrt": (0.01, 9), "Acos": (-1, 1), "Asin": (-1, 1),
                  "Tan": (-1.4, 1.4)}.get(op, (-4, 4))
        case(op, "plain", one(op), [numbers(3, 5, low=domain[0], high=domain[1])])
        case(op, "double", one(op), [numbers(3, 5, dtype=np.float64, low=domain[0], high=domain[1])])
        case(op, "scalar", one(op), [numbers(low=domain[0], high=domain[1])])
        if op not in ("Log", "Sqrt", "Rsqrt", "Acos", "Asin", "Tan", "Reciprocal"):
            case(op, "edges", one(op), [EDGES])
        if op not in ("Sin", "Cos", "Tan", "Acos", "Asin"):
            case(op, "special", one(op), [SPECIAL])
        case(op, "empty", one(op), [np.zeros((0, 3), np.float32)])
    for op in INT_UNARY:
        case(op, "plain", one(op), [WHOLE])
        case(op, "overflow", one(op), [FULL])
        case(op, "small", one(op), [SMALL])
        case(op, "large", one(op), [LARGE])
    case("Round", "whole", one("Round"), [WHOLE], expect="refused")
    case("LeakyRelu", "alpha", one("LeakyRelu", alpha=0.1), [EDGES])
    case("LogicalNot", "plain", one("LogicalNot"), [np.array([[True, False]])])


def cast_cases():
    values = {
        "float32": np.array([[0.0, -0.0, 1.5, -1.5, 2.9, -2.9, 100.0, 0.5]], np.float32),
        "float64": np.array([[0.0, 1.5, -1.5, 2.9, -2.9, 100.25]], np.float64),
        "int32": np.array([[0, 1, -1, 100, 2**24 + 1]], np.int32),
        "int64": np.array([[0, 1, -1, 100, 70000]], np.int64),
        "uint8": np.array([[0, 1, 100, 255]], np.uint8),
        "int8": np.array([[0, 1, -100, 127]], np.int8),
        "bool": np.array([[True, False]]),
    }
    for source, array in values.items():
        for target in ["float32", "float64", "int32", "int64", "bool", "uint8", "int8", "float16"]:
            unsigned = target == "uint8" and source not in ("uint8", "bool")
            narrow = target == "int8" and source not in ("int8", "bool")
            if source == target or unsigned or narrow:
                continue
            case("Cast", f"to_{target}", lambda x, t=target: raw.Cast(x=x, DstT=tf.as_dtype(t)), [array])
    case("Cast", "wraps", lambda x: raw.Cast(x=x, DstT=tf.int32), [LARGE])
    case("Cast", "special_to_bool", lambda x: raw.Cast(x=x, DstT=tf.bool), [SPECIAL])
    case("Cast", "large_to_float", lambda x: raw.Cast(x=x, DstT=tf.float32), [LARGE])


def binary_cases():
    for op in "Add AddV2 Sub Mul RealDiv Div Maximum Minimum SquaredDifference FloorDiv Pow".split():
        positive = dict(low=0.1, high=4) if op == "Pow" else {}
        a, b = numbers(3, 4, **positive), numbers(3, 4)
        case(op, "plain", two(op), [a, b])
        case(op, "broadcast", two(op), [numbers(2, 3, 1, **positive), numbers(4)], [[None, 3, 1], [4]])
        case(op, "double", two(op), [a.astype(np.float64), b.astype(np.float64)])
        case(op, "constant", lambda x, f=two(op): f(x, tf.constant([0.5, 2.0, 3.0, -1.0])), [a])
        case(op, "special", lambda x, f=two(op): f(x, tf.constant([[1.0, 2.0, 0.0, 0.0, 0.0, NAN, INF, 3.0]])), [SPECIAL])
    for op in "AddV2 Sub Mul Maximum Minimum SquaredDifference".split():
        case(op, "plain", two(op), [WHOLE, WHOLE[::-1].copy()])
        case(op, "overflow", two(op), [FULL, FULL[:, ::-1].copy()])
        case(op, "large", two(op), [LARGE, LARGE[::-1].copy()])
        case(op, "small", two(op), [SMALL, SMALL[::-1].copy()])
    for op in "Div FloorDiv FloorMod TruncateDiv".split():
        for dtype in (np.int32, np.int64):
            values = np.array([[7, -7, 8, -8, 0, 2**31 - 1]], dtype)
            case(op, "constant", lambda x, o=op: two(o)(x, tf.constant([2, 3, -3, -5, 7, 1000], x.dtype)), [values])
        case(op, "computed", lambda x, o=op: two(o)(x, tf.where(x > 5, x, 1)), [np.array([7, 8], np.int32)])
    case("FloorDiv", "edges", two("FloorDiv"), [EDGES, np.full_like(EDGES, 0.75)])
    case("FloorMod", "plain", two("FloorMod"), [EDGES, np.full_like(EDGES, 0.75)])
    case("FloorMod", "below", two("FloorMod"), [EDGES, np.full_like(EDGES, -0.75)])
    case("FloorMod", "special", lambda x: two("FloorMod")(x, tf.constant([2.0, 2.0, -2.0, 1.0, 3.0, INF, INF, -INF])), [SPECIAL])
    case("MulNoNan", "plain", two("MulNoNan"), [np.array([[NAN, INF, 1.0, 2.0]], np.float32), np.array([[0.0, -0.0, 0.0, 3.0]], np.float32)])
    case("DivNoNan", "plain", two("DivNoNan"), [EDGES, EDGES[::-1].copy()])
    for op in "Equal NotEqual Greater GreaterEqual Less LessEqual".split():
        case(op, "plain", two(op), [EDGES, np.tile(EDGES[:1], (2, 1))])
        case(op, "special", lambda x, o=op: two(o)(x, tf.constant([NAN, 1.0, -INF, -0.0, 0.0, 1.0, 2.0, 3.0])), [SPECIAL])
        case(op, "plain", two(op), [WHOLE, np.tile(WHOLE[:1], (2, 1))])
        case(op, "large", two(op), [LARGE, np.tile(LARGE[:1], (2, 1))])
        case(op, "small", two(op), [SMALL, np.tile(SMALL[:1], (2, 1))])
    case("Equal", "plain", two("Equal"), [np.array([True, False, True]), np.array([True, True, False])])
    case("Equal", "lenient", two("Equal", incompatible_shape_error=False), [EDGES, EDGES], expect="refused")
    for op in ("LogicalAnd", "LogicalOr"):
        case(op, "plain", two(op), [np.array([True, False, True, False]), np.array([True, True, False, False])])
    pick = np.array([[True, False, True, True], [False, False, True, False], [True, True, False, False]])
    a, b = numbers(3, 4), numbers(3, 4)
    case("SelectV2", "plain", lambda c, x, y: raw.SelectV2(condition=c, t=x, e=y), [pick, a, b])
    case("SelectV2", "broadcast", lambda c, x, y: raw.SelectV2(condition=c, t=x, e=y), [pick, a, np.float32(2)])
    case("SelectV2", "special", lambda x: raw.SelectV2(condition=raw.IsNan(x=x), t=tf.zeros_like(x), e=x), [SPECIAL])
    case("Select", "rows", lambda c, x, y: raw.Select(condition=c, x=x, y=y), [pick[:, 0].copy(), a, b])
    case("Select", "plain", lambda c, x, y: raw.Select(condition=c, x=x, y=y), [pick, a, b])
    case("AddN", "plain", lambda x, y: raw.AddN(inputs=[x, y, x]), [a, b])
    case("ClipByValue", "plain", lambda x: raw.ClipByValue(t=x, clip_value_min=-1.0, clip_value_max=2.0), [EDGES])


def shape_cases():
    x = numbers(2, 3, 4)
    batches = [[numbers(5, 3, 4)], [numbers(1, 3, 4)]]
    i = np.arange(24, dtype=np.int32).reshape(2, 3, 4)
    w = (np.arange(24, dtype=np.int64) * 2**30).reshape(2, 3, 4)
    for label, array in (("plain", x), ("plain", i), ("plain", w), ("plain", x > 0), ("plain", x.astype(np.uint8))):
        case("Reshape", label, lambda x: raw.Reshape(tensor=x, shape=[-1, 12]), [array])
        case("Transpose", label, lambda x: raw.Transpose(x=x, perm=[2, 0, 1]), [array])
        case("ConcatV2", label, lambda x: raw.ConcatV2(values=[x, x], axis=-1), [array])
        case("StridedSlice", label, lambda x: x[:, 1:, ::2], [array])
        case("GatherV2", label, lambda x: raw.GatherV2(params=x, indices=[2, 0, 0], axis=2), [array])
        case("Identity", label, lambda x: raw.Identity(input=x), [array])
        case("Tile", label, lambda x: raw.Tile(input=x, multiples=[1, 2, 1]), [array])
    case("Reshape", "dynamic", lambda x: tf.reshape(x, tf.stack([tf.shape(x)[0], 4, 3])), [x], runs=batches)
    case("Reshape", "two_open", lambda x: tf.reshape(x, tf.stack([tf.shape(x)[0], tf.shape(x)[1], 2, 2])), [x], [[None, None, 4]], [[numbers(3, 2, 4)]])
    case("Reshape", "fed_shape", lambda x, s: raw.Reshape(tensor=x, shape=s), [x, np.array([4, 6], np.int32)], [[None, 3, 4], [2]])
    case("Reshape", "empty", lambda x: tf.reshape(x, [-1, 12]), [np.zeros((0, 3, 4), np.float32)])
    case("Reshape", "merge_batch", lambda x: tf.reshape(x, [-1, 4]), [x], runs=batches)
    case("Reshape", "to_scalar", lambda x: tf.reshape(x, []), [numbers(1)])
    case("Squeeze", "axis", lambda x: tf.squeeze(x, [1]), [numbers(2, 1, 3)])
    case("Squeeze", "all", lambda x: tf.squeeze(x), [numbers(2, 1, 3, 1)], [[2, 1, 3, 1]])
    case("Squeeze", "unknown", lambda x: tf.squeeze(x), [numbers(2, 1, 3)], expect="refused")
    case("ExpandDims", "first", lambda x: tf.expand_dims(x, 0), [x])
    case("ExpandDims", "last", lambda x: tf.expand_dims(x, -1), [x])
    case("Shape", "plain", lambda x: tf.shape(x), [x], runs=batches)
    case("Shape", "wide", lambda x: tf.shape(x, out_type=tf.int64), [x])
    case("Shape", "no_rank", lambda x: tf.shape(x), [x], [None])
    case("Size", "plain", lambda x: tf.size(x), [x], runs=batches)
    case("Rank", "plain", lambda x: tf.rank(x) + tf.shape(x)[0], [x])
    case("Transpose", "there_and_back", lambda x: tf.transpose(tf.nn.relu(tf.transpose(x, [0, 3, 1, 2])), [0, 2, 3, 1]), [numbers(2, 4, 5, 3)])
    case("Concat", "plain", lambda x, y: raw.Concat(concat_dim=1, values=[x, y]), [x, x])
    case("ConcatV2", "constant", lambda x: tf.concat([x, tf.ones([2, 3, 4])], 2), [x], [[2, 3, 4]])
    case("Pack", "first", lambda x, y: tf.stack([x, y]), [x, x])
    case("Pack", "last", lambda x, y: tf.stack([x, y], axis=-1), [x, x])
    case("Pack", "whole", lambda x, y: tf.stack([x, y], axis=1), [i, i])
    case("Unpack", "plain", lambda x: tf.unstack(x, axis=1), [x])
    case("Split", "plain", lambda x: tf.split(x, 2, axis=2), [x])
    case("Split", "unknown", lambda x: tf.split(x, 2, axis=0), [x])
    case("SplitV", "plain", lambda x: tf.split(x, [1, -1], axis=2), [x])
    case("Slice", "plain", lambda x: tf.slice(x, [0, 1, 1], [-1, 2, 3]), [x], runs=batches)
    case("Slice", "open", lambda x: tf.slice(x, [1, 0, 0], [1, 3, -1]), [x])
    case("Slice", "by_sizes", lambda x: tf.slice(tf.constant(np.arange(20.0, dtype=np.float32).reshape(10, 2)), [0, 0], tf.stack([tf.shape(x)[0], 2])), [x], runs=batches)
    case("Slice", "by_sizes_and_all", lambda x: tf.slice(tf.constant(np.arange(20.0, dtype=np.float32).reshape(10, 2)), [0, 0], tf.stack([tf.shape(x)[0], -1])), [x], runs=batches)
    case("Slice", "clipped", lambda x: tf.slice(x, [0, 0, 0], tf.stack([tf.where(tf.shape(x)[0] > 2, 2, -1), -1, tf.where(tf.shape(x)[2] > 9, 9, -1)])), [x], [[None, None, None]], [[x[:, :, :2]], [np.repeat(x, 4, 2)]])
    for label, cut in {
        "shrink": lambda x: x[:, 1], "last": lambda x: x[..., -1], "negative": lambda x: x[:, -2:, :-1],
        "reverse": lambda x: x[:, ::-1], "new_axis": lambda x: x[:, tf.newaxis, :, 1:3], "ellipsis": lambda x: x[0, ..., 1:],
        "past_end": lambda x: x[:, 1:100], "step": lambda x: x[:, ::2, 3:0:-2], "batch": lambda x: x[1:], "first": lambda x: x[0],
        "empty": lambda x: x[:, 2:1],
    }.items():
        case("StridedSlice", label, cut, [x])
    case("ReverseV2", "plain", lambda x: tf.reverse(x, [1, -1]), [x])
    case("Pad", "plain", lambda x: tf.pad(x, [[0, 0], [1, 2], [0, 1]]), [x])
    case("Pad", "plain", lambda x: tf.pad(x, [[0, 0], [1, 2], [0, 1]]), [i])
    fed_slice = [x, np.array([0, 1, 2], np.int32), np.array([1, 2, -1], np.int32)]
    case("Slice", "fed", lambda x, b, z: tf.slice(x, b, z), fed_slice, [[None, 3, 4], [3], [3]],
         [[x, np.array([2, 0, 0], np.int32), np.array([-1, 3, 1], np.int32)], [x, np.array([0, 3, 0], np.int32), np.array([2, -1, 4], np.int32)]],
         fails=[[x, np.array(b, np.int32), np.array(z, np.int32)] for b, z in (([0, 0, 0], [2, 3, 5]), ([-1, 0, 0], [1, 1, 1]), ([0, 0, 5], [1, 1, -1]), ([0, 0, 4], [1, 1, 1]), ([0, 0, 0], [-2, 1, 1]))])
    case("Slice", "fed_beginnings", lambda x, b: tf.slice(x, tf.stack([0, b, 0]), [-1, 1, 4]), [x, np.int32(2)], [[None, 3, 4], []])
    case("Slice", "fed_sizes", lambda x, z: tf.slice(x, [0, 1, 0], tf.stack([-1, z, 4])), [x.astype(np.int64), np.int32(2)], [[None, None, 4], []])
    fed_pads = [x, np.array([[0, 0], [1, 2], [0, 1]], np.int32)]
    case("Pad", "fed", lambda x, p: tf.pad(x, p), fed_pads, [[None, 3, 4], [3, 2]], [[x, np.zeros((3, 2), np.int32)]], fails=[[x, np.array([[0, 0], [-1, 0], [0, 0]], np.int32)]])
    case("PadV2", "fed", lambda x, p: tf.pad(x, p, constant_values=-1.5), [x, np.array([[0, 0], [1, 2], [0, 1]], np.int64)], [[None, None, 4], [3, 2]])
    case("PadV2", "plain", lambda x: tf.pad(x, [[0, 0], [1, 2], [0, 1]], constant_values=-INF), [x])
    case("MirrorPad", "reflect", lambda x: tf.pad(x, [[0, 0], [1, 2], [0, 1]], "REFLECT"), [x])
    case("MirrorPad", "symmetric", lambda x: tf.pad(x, [[0, 0], [1, 2], [0, 1]], "SYMMETRIC"), [x])
    case("Tile", "dynamic", lambda x: tf.tile(tf.constant([[1.0, 2.0]]), tf.stack([tf.shape(x)[0], 3])), [x], runs=batches)
    case("BroadcastTo", "plain", lambda x: tf.broadcast_to(x, [2, 5, 3]), [numbers(5, 1)], [[5, 1]])
    case("Fill", "constant", lambda x: x + tf.fill([2, 3, 4], 1.5), [x], [[2, 3, 4]])
    case("Fill", "dynamic", lambda x: tf.fill(tf.stack([tf.shape(x)[0], 2]), 1.5), [x], runs=batches)
    case("Fill", "whole", lambda x: tf.fill(tf.stack([tf.shape(x)[0], 2]), tf.constant(3 * 10**9, tf.int64)), [x])
    case("Range", "sizes", lambda x: tf.range(0, tf.shape(x)[0], 1), [x], runs=batches)
    case("Range", "float", lambda x: raw.Range(start=x, limit=5.0, delta=0.5), [np.float32(1)])


def gather_cases():
    table = numbers(7, 3)
    case("GatherV2", "rows", lambda i: tf.gather(tf.constant(table), i), [np.array([[0, 6], [3, 3]], np.int32)])
    case("GatherV2", "rows", lambda i: tf.gather(tf.constant(table), i), [np.array([[0, 6], [3, 3]], np.int64)])
    case("GatherV2", "axis", lambda x, i: tf.gather(x, i, axis=1), [numbers(2, 5, 3), np.array([4, 0], np.int32)])
    case("GatherV2", "batch", lambda x, i: tf.gather(x, i, batch_dims=1), [numbers(2, 5, 3), np.array([[4, 0], [1, 1]], np.int32)])
    case("GatherV2", "scalar", lambda x: tf.gather(x, 1, axis=1), [numbers(2, 5, 3)])
    case("GatherV2", "columns", lambda x: tf.gather(tf.matmul(x, tf.constant(numbers(3, 5))), [4, 0, 4], axis=-1), [numbers(2, 3)])
    case("GatherNd", "plain", lambda x, i: tf.gather_nd(x, i), [numbers(3, 4, 2), np.array([[0, 3], [2, 1]], np.int32)])
    for dtype in (np.int32, np.int64):
        case("OneHot", "plain", lambda i: tf.one_hot(i, 4), [np.array([[0, 3], [-1, 4]], dtype)])
    case("OneHot", "axis", lambda i: tf.one_hot(i, 4, on_value=5.0, off_value=-1.0, axis=0), [np.array([0, 3, 9], np.int32)])
    case("Where", "plain", lambda x: raw.Where(condition=x > 0), [numbers(3, 4)])
    case("Where", "none", lambda x: raw.Where(condition=x > 9), [numbers(3, 4)])


def reduction_cases():
    x = numbers(3, 4, 5)
    w = (np.arange(12, dtype=np.int64).reshape(3, 4) - 5) * 2**33
    s = (np.arange(12, dtype=np.int64).reshape(3, 4) - 5)
    i = (np.arange(12, dtype=np.int32).reshape(3, 4) - 5)
    for name in "Mean Sum Max Min Prod".split():
        build = lambda axis, keep, n=name: lambda x: getattr(raw, n)(input=x, axis=axis, keep_dims=keep)
        case(name, "last", build([-1], False), [x])
        case(name, "keep", build([1, 2], True), [x])
        case(name, "all", build([0, 1, 2], False), [x])
        case(name, "none", build(np.zeros([0], np.int32), False), [x])
        case(name, "scalar_axis", build(1, False), [x])
        case(name, "double", build([-1], False), [x.astype(np.float64)])
        case(name, "special", build([1], False), [np.array([[1, NAN, 2], [INF, 1, 2], [-INF, 1, 2]], np.float32)])
        if name != "Mean":
            case(name, "last", build([1], False), [i])
            case(name, "last", build([1], False), [s])
            case(name, "large", build([1], False), [w])
    case("Mean", "whole", lambda x: raw.Mean(input=x, axis=[1]), [i], expect="refused")
    case("EuclideanNorm", "last", lambda x: raw.EuclideanNorm(input=x, axis=[-1]), [x])
    flags = np.array([[True, True], [True, False], [False, False]])
    for name in ("All", "Any"):
        case(name, "last", lambda x, n=name: getattr(raw, n)(input=x, axis=[1]), [flags])
        case(name, "all", lambda x, n=name: getattr(raw, n)(input=x, axis=[0, 1]), [flags])
    ties = np.array([[1, 3, 3, 2], [5, 5, 5, 5], [-1, -1, -2, -1]], np.float32)
    for name in ("ArgMax", "ArgMin"):
        build = lambda t, axis, n=name: lambda x: getattr(raw, n)(input=x, dimension=axis, output_type=t)
        case(name, "distinct", build(tf.int64, 1), [x])
        case(name, "narrow", build(tf.int32, -1), [x])
        case(name, "ties", build(tf.int64, 1), [ties])
        case(name, "ties", build(tf.int64, 1), [ties.astype(np.int32)])
        case(name, "large", build(tf.int64, 1), [w])
        case(name, "special", build(tf.int64, 1), [np.array([[1, INF, 2], [-INF, 1, 2]], np.float32)])
        case(name, "nan", build(tf.int64, 1), [np.array([[1, NAN, 2], [NAN, NAN, NAN]], np.float32)])
    case("TopKV2", "distinct", lambda x: tf.math.top_k(x, 2), [x])
    case("TopKV2", "ties", lambda x: tf.math.top_k(x, 3), [ties])
    case("TopKV2", "whole", lambda x: tf.math.top_k(x, 2), [i])
    case("Cumsum", "plain", lambda x: tf.cumsum(x, axis=1), [x])
    case("Cumsum", "exclusive_reverse", lambda x: tf.cumsum(x, axis=1, exclusive=True, reverse=True), [x])
    case("Cumsum", "plain", lambda x: tf.cumsum(x, axis=1), [i])
    for name in ("Softmax", "LogSoftmax"):
        for label, array in (("plain", x), ("double", x.astype(np.float64)), ("matrix", ties), ("wide", numbers(2, 1001, low=-50, high=50))):
            case(name, label, lambda x, n=name: getattr(raw, n)(logits=x), [array])
    case("Softmax", "infinite", lambda x: raw.Softmax(logits=x), [np.array([[0, -INF, 1], [100, 1, 2]], np.float32)])


def matrix_cases():
    a, b = numbers(3, 4), numbers(4, 5)
    for ta in (False, True):
        for tb in (False, True):
            build = lambda x, y, ta=ta, tb=tb: raw.MatMul(a=x, b=y, transpose_a=ta, transpose_b=tb)
            left, right = (a.T if ta else a).copy(), (b.T if tb else b).copy()
            case("MatMul", f"fed_{ta}_{tb}", build, [left, right])
            case("MatMul", f"constant_{ta}_{tb}", lambda x, f=build, r=right: f(x, tf.constant(r)), [left])
    case("MatMul", "double", lambda x, y: tf.matmul(x, y), [a.astype(np.float64), b.astype(np.float64)])
    case("MatMul", "whole", lambda x, y: tf.matmul(x, y), [np.arange(6, dtype=np.int32).reshape(2, 3), np.arange(6, dtype=np.int32).reshape(3, 2)])
    case("MatMul", "empty", lambda x: tf.matmul(x, tf.constant(b)), [np.zeros((0, 4), np.float32)])
    p, q = numbers(2, 3, 4, 5), numbers(2, 3, 5, 6)
    for ta in (False, True):
        for tb in (False, True):
            turn = lambda m, t: np.swapaxes(m, -1, -2).copy() if t else m
            case("BatchMatMulV2", f"fed_{ta}_{tb}", lambda x, y, ta=ta, tb=tb: raw.BatchMatMulV2(x=x, y=y, adj_x=ta, adj_y=tb), [turn(p, ta), turn(q, tb)])
    case("BatchMatMulV2", "broadcast", lambda x, y: raw.BatchMatMulV2(x=x, y=y), [p, numbers(5, 6)])
    for equation, left, right in (("abc,cd->abd", (2, 3, 4), (4, 5)), ("aecd,abcd->acbe", (2, 3, 4, 5), (2, 6, 4, 5)), ("acbe,aecd->abcd", (2, 4, 6, 3), (2, 3, 4, 5)), ("abcd,cde->abe", (2, 3, 4, 5), (4, 5, 6))):
        case("Einsum", equation.replace(",", "_").replace("->", "_to_"), lambda x, y, e=equation: tf.raw_ops.Einsum(inputs=[x, y], equation=e), [numbers(*left), numbers(*right)])
    case("BiasAdd", "plain", lambda x: tf.nn.bias_add(x, tf.constant([1.0, 2.0, 3.0, 4.0])), [a])
    case("BiasAdd", "fed", lambda x, y: tf.nn.bias_add(x, y), [a, numbers(4)], [[None, 4], [4]])
    case("BiasAdd", "image", lambda x: tf.nn.bias_add(x, tf.constant([1.0, 2.0, 3.0])), [numbers(2, 4, 4, 3)])
    case("BiasAdd", "channels_first", lambda x: tf.nn.bias_add(x, tf.constant([1.0, 2.0, 3.0]), "NCHW"), [numbers(2, 3, 4, 4)])


def image_cases():
    image = numbers(2, 7, 8, 3)
    others = [[numbers(1, 7, 8, 3)]]
    for padding in ("SAME", "VALID"):
        for stride in (1, 2, 3):
            for size in ((1, 1), (3, 3), (2, 5)):
                k = numbers(*size, 3, 4)
                label = f"{padding}_{stride}_{size[0]}x{size[1]}".lower()
                case("Conv2D", label, lambda x, k=k, s=stride, p=padding: tf.nn.conv2d(x, tf.constant(k), s, p), [image], runs=others)
        k = numbers(3, 3, 3, 2)
        for stride in (1, 2):
            case("DepthwiseConv2dNative", f"{padding}_{stride}".lower(), lambda x, k=k, s=stride, p=padding: raw.DepthwiseConv2dNative(input=x, filter=tf.constant(k), strides=[1, s, s, 1], padding=p), [image])
        for window, stride in ((2, 2), (3, 2), (3, 1)):
            label = f"{padding}_{window}_{stride}".lower()
            case("MaxPool", label, lambda x, w=window, s=stride, p=padding: tf.nn.max_pool2d(x, w, s, p), [image])
            case("AvgPool", label, lambda x, w=window, s=stride, p=padding: tf.nn.avg_pool2d(x, w, s, p), [image])
    # The average comes after such a convolution in the translation.
    random = np.random.default_rng(4)
    cells, bias = random.normal(size=(1, 1, 3, 2)).astype("f"), random.normal(size=2).astype("f")
    odd = image.copy()
    odd[0, 0, 0, 0], odd[0, 4, 4, 1], odd[1, 2, 2, 0] = NAN, INF, -INF
    for padding in ("SAME", "VALID"):
        case("AvgPool", f"cells_{padding}".lower(), lambda x, p=padding: tf.nn.bias_add(tf.nn.conv2d(tf.nn.avg_pool2d(x, 3, 1, p), tf.constant(cells), 1, "SAME"), bias), [image], [[None, None, None, 3]], [[odd]])
    k = numbers(3, 3, 3, 4)
    case("Conv2D", "dilated", lambda x: raw.Conv2D(input=x, filter=tf.constant(k), strides=[1, 1, 1, 1], dilations=[1, 2, 2, 1], padding="SAME"), [image])
    case("Conv2D", "explicit", lambda x: raw.Conv2D(input=x, filter=tf.constant(k), strides=[1, 2, 2, 1], padding="EXPLICIT", explicit_paddings=[0, 0, 1, 2, 0, 1, 0, 0]), [image])
    case("Conv2D", "fed_kernel", lambda x, f: tf.nn.conv2d(x, f, 1, "SAME"), [image, k], [[None, 7, 8, 3], [3, 3, 3, 4]])
    grouped = numbers(3, 3, 2, 4)
    case("Conv2D", "groups", lambda x: tf.nn.conv2d(x, tf.constant(grouped), 1, "SAME"), [numbers(2, 5, 5, 4)])
    opened = [None, None, None, 3]
    sizes = [[numbers(1, 8, 7, 3)], [numbers(1, 9, 12, 3)]]
    case("Conv2D", "open_size_same_1", lambda x: tf.nn.conv2d(x, tf.constant(k), 1, "SAME"), [image], [opened], sizes)
    case("Conv2D", "open_size_same_2", lambda x: tf.nn.conv2d(x, tf.constant(k), 2, "SAME"), [image], [opened], sizes)
    case("Conv2D", "open_size_valid_2", lambda x: tf.nn.conv2d(x, tf.constant(k), 2, "VALID"), [image], [opened], sizes)
    case("MaxPool", "open_size_same_2", lambda x: tf.nn.max_pool2d(x, 3, 2, "SAME"), [image], [opened], sizes)
    case("AvgPool", "open_size_same_2", lambda x: tf.nn.avg_pool2d(x, 3, 2, "SAME"), [image], [opened], sizes)
    case("Conv2D", "open_channels", lambda x: tf.nn.conv2d(x, tf.constant(k), 1, "SAME"), [image], [[None] * 4], expect="refused")
    volume = numbers(2, 4, 5, 6, 2)
    case("Conv3D", "same", lambda x: tf.nn.conv3d(x, tf.constant(numbers(3, 3, 3, 2, 3)), [1] * 5, "SAME"), [volume])
    case("MaxPool3D", "same", lambda x: tf.nn.max_pool3d(x, 2, 2, "SAME"), [volume])
    case("AvgPool3D", "same", lambda x: tf.nn.avg_pool3d(x, 2, 2, "SAME"), [volume])
    for padding, stride, shape in (("SAME", 2, [2, 14, 16, 4]), ("VALID", 2, [2, 15, 17, 4]), ("SAME", 1, [2, 7, 8, 4]), ("SAME", 2, [2, 13, 15, 4])):
        turned = numbers(3, 3, 4, 3)
        case("Conv2DBackpropInput", f"{padding}_{stride}_{shape[1]}".lower(), lambda x, f=turned, s=stride, p=padding, o=shape: tf.nn.conv2d_transpose(x, tf.constant(f), tf.stack([tf.shape(x)[0]] + o[1:]), s, p), [image])
    scale, offset, mean, variance = numbers(3), numbers(3), numbers(3), numbers(3, low=0.1, high=2)
    for version in ("", "V2", "V3"):
        norm = lambda x, v=version: getattr(raw, "FusedBatchNorm" + v)(x=x, scale=scale, offset=offset, mean=mean, variance=variance, epsilon=1e-3, is_training=False)[0]
        case("FusedBatchNorm" + version, "plain", norm, [image])
        case("FusedBatchNorm" + version, "behind_pool", lambda x, n=norm: n(tf.nn.max_pool2d(x, 2, 2, "SAME")), [image])
    fed = lambda x, s: raw.FusedBatchNormV3(x=x, scale=s, offset=offset, mean=mean, variance=variance, epsilon=1e-3, is_training=False)[0]
    case("FusedBatchNormV3", "fed", fed, [image, scale], [[None, 7, 8, 3], [3]])
    itself = lambda x, **a: raw.FusedBatchNormV3(x=x, scale=scale, offset=offset, mean=[], variance=[], is_training=True, **a)
    case("FusedBatchNormV3", "by_itself", lambda x: itself(x)[0], [image], runs=[[image[:1]]])
    case("FusedBatchNormV3", "its_statistics", lambda x: itself(x)[:2], [image], expect="refused")

    def by_example(x):
        size = tf.shape(x)[0]
        y = tf.reshape(x, [1, size, -1, 1])
        ones, zeros = tf.ones([size]), tf.zeros([size])
        y = raw.FusedBatchNormV3(x=y, scale=ones, offset=zeros, mean=[], variance=[], epsilon=1e-3, data_format="NCHW", is_training=True)[0]
        return tf.reshape(y, tf.shape(x)) * scale + offset

    case("FusedBatchNormV3", "by_example", by_example, [numbers(4, 5, 3)], runs=[[numbers(1, 5, 3)]])
    for name, op in (("ResizeBilinear", raw.ResizeBilinear), ("ResizeNearestNeighbor", raw.ResizeNearestNeighbor)):
        for corners, half in ((False, False), (True, False), (False, True)):
            for size in ([14, 16], [3, 5], [10, 3]):
                label = f"{'corners' if corners else 'half' if half else 'plain'}_{size[0]}x{size[1]}"
                case(name, label, lambda x, o=op, z=size, c=corners, h=half: o(images=x, size=z, align_corners=c, half_pixel_centers=h), [image])
    case("ResizeBilinear", "open", lambda x: tf.compat.v1.image.resize_bilinear(x, tf.shape(x)[1:3] * 2), [image], [opened], sizes)
    for dtype in (np.uint8, np.int32, np.float64):
        case("ResizeBilinear", "half_14x16", lambda x: raw.ResizeBilinear(images=x, size=[14, 16], half_pixel_centers=True), [numbers(2, 7, 8, 3, low=0, high=250).astype(dtype)])
    case("ResizeNearestNeighbor", "half_14x16", lambda x: raw.ResizeNearestNeighbor(images=x, size=[14, 16], half_pixel_centers=True), [numbers(2, 7, 8, 3, low=0, high=250).astype(np.uint8)])
    deep = numbers(3, 3, 3, 4, 2)
    for stride, padding, shape in ((2, "SAME", [8, 10, 12, 4]), (1, "VALID", [6, 7, 8, 4])):
        case("Conv3DBackpropInputV2", f"{padding}_{stride}".lower(), lambda x, s=stride, p=padding, o=shape: tf.nn.conv3d_transpose(x, tf.constant(deep), tf.stack([tf.shape(x)[0]] + o), [1, s, s, s, 1], p), [volume])
    case("Conv3D", "valid_2", lambda x: tf.nn.conv3d(x, tf.constant(numbers(2, 3, 2, 2, 3)), [1, 2, 2, 2, 1], "VALID"), [volume])
    case("Conv3D", "biased", lambda x: tf.nn.relu(tf.nn.bias_add(tf.nn.conv3d(x, tf.constant(numbers(3, 3, 3, 2, 3)), [1] * 5, "SAME"), tf.constant([1.0, -1.0, 0.5]))), [volume])
    for pool in ("MaxPool3D", "AvgPool3D"):
        case(pool, "valid_2", lambda x, p=pool: getattr(raw, p)(input=x, ksize=[1, 2, 3, 2, 1], strides=[1, 2, 1, 2, 1], padding="VALID"), [volume])
    case("DepthToSpace", "plain", lambda x: raw.DepthToSpace(input=x, block_size=2), [numbers(2, 3, 4, 8)])


def further_cases():
    x, image = numbers(2, 3, 4), numbers(2, 6, 8, 4)
    for op, low, high in (("Acosh", 1, 9), ("Asinh", -9, 9), ("Atanh", -0.99, 0.99), ("Expm1", -4, 4), ("Log1p", -0.9, 9)):
        case(op, "plain", one(op), [numbers(3, 5, low=low, high=high)])
        case(op, "double", one(op), [numbers(3, 5, dtype=np.float64, low=low, high=high)])
        case(op, "special", one(op), [SPECIAL])
    tiny = np.array([[1e-7, -1e-7, 1e-4, -1e-4, 3e-8, 1e-30, -1e-30, 0.0, -0.0, 80.0, -80.0, -17.0]], np.float32)
    for op in ("Expm1", "Log1p"):
        # Each by itself, so that the small ones are not measured by the large.
        case(op, "small", lambda x, o=op: tf.split(one(o)(x), x.shape[1], axis=1), [np.abs(tiny) if op == "Log1p" else tiny])
    tiny = np.array([[1e-7, -1e-7, 0.0, -0.0, 1e-30, -20.0]], np.float32)
    case("Expm1", "tiny", one("Expm1"), [tiny])
    case("Log1p", "tiny", one("Log1p"), [tiny[:, :5].copy()])
    ends = np.array([[-6.0, -3.0, -0.5, 0.0, 0.5, 3.0, 5.0, 9.0]], np.float32)
    for label, array in (("plain", ends), ("edges", EDGES), ("special", SPECIAL), ("double", ends.astype(np.float64)), ("empty", np.zeros((0, 3), np.float32))):
        case("Erfc", label, one("Erfc"), [array], expect="refused")
        for exact in (True, False):
            case("Gelu", f"{'exact' if exact else 'tanh'}_{label}", lambda x, e=exact: tf.nn.gelu(x, approximate=not e), [array])
    case("Gelu", "fetched", lambda x: (lambda e: [0.5 * x * e, e])(tf.math.erfc(-x * np.float32(np.sqrt(0.5)))), [ends], expect="refused")
    case("Gelu", "of_another", lambda x, y: 0.5 * y * tf.math.erfc(-x * np.float32(np.sqrt(0.5))), [ends, ends], expect="refused")
    case("EnsureShape", "sure", lambda x: tf.ensure_shape(x, [None, 3, 4]), [x])
    case("EnsureShape", "open", lambda x: raw.EnsureShape(input=x, shape=[2, 3, 4]), [x], expect="refused")
    for radius, bias, alpha, beta in ((5, 1.0, 1.0, 0.5), (2, 2.0, 1e-4, 0.75), (1, 0.5, 0.3, 0.6)):
        case("LRN", f"radius_{radius}", lambda x, r=radius, b=bias, a=alpha, e=beta: raw.LRN(input=x, depth_radius=r, bias=b, alpha=a, beta=e), [image])
    for label, array in (("plain", image), ("whole", image.astype(np.int32))):
        case("SpaceToDepth", label, lambda x: raw.SpaceToDepth(input=x, block_size=2), [array], runs=[[array[:1]]])
        case("SpaceToBatchND", label, lambda x: raw.SpaceToBatchND(input=x, block_shape=[2, 3], paddings=[[1, 1], [0, 1]]), [array], runs=[[array[:1]]])
        case("BatchToSpaceND", label, lambda x: raw.BatchToSpaceND(input=x, block_shape=[2, 1], crops=[[1, 2], [0, 1]]), [array])
    case("SpaceToDepth", "channels_first", lambda x: tf.transpose(raw.SpaceToDepth(input=tf.transpose(x, [0, 2, 3, 1]), block_size=2), [0, 3, 1, 2]), [numbers(2, 3, 4, 6)])
    case("SpaceToDepth", "open", lambda x: raw.SpaceToDepth(input=x, block_size=2), [image], [[None, None, None, 4]], expect="refused")
    case("SpaceToBatch", "plain", lambda x: raw.SpaceToBatch(input=x, paddings=[[0, 0], [0, 0]], block_size=2), [image])
    case("BatchToSpace", "plain", lambda x: raw.BatchToSpace(input=x, crops=[[0, 1], [0, 0]], block_size=2), [numbers(8, 3, 3, 2)])
    k, d = numbers(3, 3, 4, 5), numbers(3, 3, 4, 1)
    case("SpaceToBatchND", "dilates", lambda x: raw.BatchToSpaceND(input=tf.nn.conv2d(raw.SpaceToBatchND(input=x, block_shape=[2, 2], paddings=[[2, 2], [2, 2]]), tf.constant(k), 1, "VALID"), block_shape=[2, 2], crops=[[0, 0], [0, 0]]), [image], runs=[[image[:1]]])
    case("DepthwiseConv2dNative", "explicit", lambda x: raw.DepthwiseConv2dNative(input=x, filter=tf.constant(d), strides=[1, 2, 2, 1], padding="EXPLICIT", explicit_paddings=[0, 0, 1, 0, 2, 1, 0, 0]), [image])
    case("MaxPool", "explicit", lambda x: raw.MaxPool(input=x, ksize=[1, 3, 3, 1], strides=[1, 2, 2, 1], padding="EXPLICIT", explicit_paddings=[0, 0, 1, 0, 0, 1, 0, 0]), [image])
    holes = image.copy()
    holes[0, 2:4, 1] = NAN
    holes[1, 0, 0] = -INF
    case("MaxPool", "special", lambda x: tf.nn.max_pool2d(x, 3, 2, "SAME"), [holes])
    case("AvgPool", "special", lambda x: tf.nn.avg_pool2d(x, 3, 2, "SAME"), [holes])
    for mode in ("REFLECT", "SYMMETRIC"):
        case("MirrorPad", f"{mode}_some".lower(), lambda x, m=mode: raw.MirrorPad(input=x, paddings=[[0, 0], [2, 0], [1, 3]], mode=m), [x])
        case("MirrorPad", f"{mode}_image".lower(), lambda x, m=mode: raw.MirrorPad(input=tf.nn.relu(tf.nn.conv2d(x, tf.constant(k), 1, "SAME")), paddings=[[0, 0], [2, 1], [0, 3], [0, 0]], mode=m), [image])
        case("MirrorPad", f"{mode}_whole".lower(), lambda x, m=mode: raw.MirrorPad(input=x, paddings=[[0, 0], [1, 1], [1, 1]], mode=m), [x.astype(np.int32)])
    case("MirrorPad", "all_of_it", lambda x: raw.MirrorPad(input=x, paddings=[[0, 0], [3, 3], [4, 4]], mode="SYMMETRIC"), [x])
    case("MirrorPad", "all_but_one", lambda x: raw.MirrorPad(input=x, paddings=[[0, 0], [2, 2], [3, 3]], mode="REFLECT"), [x])
    case("MirrorPad", "open", lambda x: raw.MirrorPad(input=x, paddings=[[1, 1], [0, 0], [0, 0]], mode="REFLECT"), [x], fails=[[x[:1]]])
    table = numbers(9, 2)
    lengths = [[numbers(1, 7)], [numbers(3, 1)], [numbers(2, 0)]]
    case("StridedSlice", "end_by_size", lambda x: tf.constant(table)[: tf.shape(x)[1]], [numbers(2, 5)], [[None, None]], lengths)
    case("StridedSlice", "end_past", lambda x: tf.constant(table)[: tf.shape(x)[1] * 4, 1:], [numbers(2, 5)], [[None, None]], lengths)
    case("StridedSlice", "begin_by_size", lambda x: tf.constant(table)[tf.shape(x)[1] :, ::-1], [numbers(2, 5)], [[None, None]], lengths)
    case("StridedSlice", "both_by_size", lambda x: tf.constant(table)[-tf.shape(x)[1] : tf.shape(x)[0] + 4 : 2], [numbers(2, 5)], [[None, None]], lengths)
    case("StridedSlice", "fed_bounds", lambda x, b, e: tf.strided_slice(x, b, e, [1, -1]), [numbers(4, 5), np.array([1, 4], np.int32), np.array([-1, 1], np.int32)], [[None, 5], [2], [2]], [[numbers(4, 5), np.array([-9, 9], np.int32), np.array([9, -9], np.int32)]])
    index = [[None, 5], []]
    case("StridedSlice", "fed_index", lambda x, i: x[:, i], [numbers(4, 5), np.int32(2)], index, [[numbers(2, 5), np.int32(-1)]], fails=[[numbers(4, 5), np.int32(5)], [numbers(4, 5), np.int32(-6)]])
    case("StridedSlice", "fed_index_first", lambda x, i: x[i], [numbers(4, 5), np.int32(2)], [[None, None], []], [[numbers(2, 3), np.int32(0)]])
    case("StridedSlice", "fed_indices", lambda x, i: x[i, 1:, tf.newaxis, ..., i], [numbers(4, 5, 2, 6), np.int32(2)], [[None, 5, 2, None], []])
    case("StridedSlice", "fed_index_whole", lambda x, i: x[i, ::2], [np.arange(24, dtype=np.int64).reshape(4, 6), np.int64(3)], [[None, 6], []])
    for below, above in ((-1, 0), (0, -1), (1, 2), (0, 0), (-1, -1), (2, 1)):
        case("MatrixBandPart", f"{below}_{above}".replace("-", "m"), lambda x, l=below, u=above: tf.linalg.band_part(x, l, u), [numbers(2, 4, 5)], [[None, None, None]], [[numbers(1, 5, 3)]])
    case("MatrixBandPart", "special", lambda x: tf.linalg.band_part(x, -1, 0), [np.array([[NAN, INF], [1.0, NAN]], np.float32)])
    for dtype in (np.bool_, np.int32, np.int64, np.float16):
        case("MatrixBandPart", "lower", lambda x: tf.linalg.band_part(x, -1, 0), [(numbers(2, 4, 5) * 3).astype(dtype)], [[None, None, None]])
    case("MatrixBandPart", "mask", lambda x: tf.linalg.band_part(tf.ones(tf.stack([tf.shape(x)[1], tf.shape(x)[1]])), -1, 0), [numbers(2, 5)], [[None, None]], [[numbers(1, 3)]])
    case("Einsum", "open_axes", lambda x, y: raw.Einsum(inputs=[x, y], equation="...ab,bc->...ac"), [numbers(2, 3, 4, 5), numbers(5, 6)], [[None, 3, 4, 5], [5, 6]])
    case("Einsum", "open_axes_of_both", lambda x, y: raw.Einsum(inputs=[x, y], equation="...ab,...bc->...ac"), [numbers(2, 3, 4), numbers(2, 4, 5)], [[2, 3, 4], [2, 4, 5]])
    case("Einsum", "open_axes_that_differ", lambda x, y: raw.Einsum(inputs=[x, y], equation="...ab,...bc->...ac"), [numbers(1, 3, 4), numbers(2, 4, 5)], expect="refused")
    case("Einsum", "open_sizes", lambda x, y: raw.Einsum(inputs=[x, y], equation="aecd,abcd->acbe"), [numbers(2, 3, 4, 5), numbers(2, 6, 4, 5)], [[None, None, 4, 5], [None, None, 4, 5]], [[numbers(1, 7, 4, 5), numbers(1, 2, 4, 5)]])
    case("Einsum", "special", lambda x, y: raw.Einsum(inputs=[x, y], equation="ab,bc->ac"), [np.array([[NAN, 1], [INF, 2], [0, 3]], np.float32), numbers(2, 3)])
    case("BatchMatMulV2", "open_sizes", lambda x, y: raw.BatchMatMulV2(x=x, y=y, adj_y=True), [numbers(2, 3, 4, 5), numbers(2, 3, 6, 5)], [[None, 3, None, 5], [None, 3, None, 5]], [[numbers(1, 3, 1, 5), numbers(1, 3, 2, 5)]])
    case("BatchMatMulV3", "plain", lambda x, y: raw.BatchMatMulV3(x=x, y=y, Tout=tf.float32), [numbers(2, 3, 4), numbers(2, 4, 5)])
    case("BatchMatMul", "plain", lambda x, y: raw.BatchMatMul(x=x, y=y), [numbers(2, 3, 4), numbers(2, 4, 5)])
    # Embeddings: rows by ids, in their own width.
    words = numbers(500, 6)
    for dtype in (np.int32, np.int64):
        ids = np.array([[1, 499, 0, 7], [3, 3, 250, 0]], dtype)
        case("GatherV2", "embedding", lambda i: tf.gather(tf.constant(words), i), [ids], [[None, None]], [[ids[:1, :2]], [ids[:, :0]]],
             fails=[[np.array([[0, 500]], dtype)], [np.array([[-1]], dtype)]])
        case("OneHot", "embedding", lambda i: tf.matmul(tf.reshape(tf.one_hot(i, 500), [-1, 500]), tf.constant(words)), [ids])
    case("GatherV2", "wide_ids", lambda i: tf.gather(tf.constant(words), i), [np.array([[5, 6]], np.int64)], [[None, None]],
         fails=[[np.array([[2**31 + 5]], np.int64)], [np.array([[0, 2**32]], np.int64)], [np.array([[-(2**40)]], np.int64)]])
    case("OneHot", "wide_ids", lambda i: tf.one_hot(i, 7), [np.array([[5, 2**32 + 5, -(2**32)]], np.int64)])
    case("Equal", "wide_ids", lambda i: tf.cast(tf.equal(i, 5), tf.float32), [np.array([[5, 2**32 + 5, 5 - 2**32]], np.int64)])
    # Numbers of both widths that cannot be held in 32 bits, into a network of floats.
    case("MatMul", "wide", lambda x: tf.matmul(tf.cast(x, tf.float32), tf.constant(words[:6, :3])), [LARGE])


def detection_cases():
    # The same boxes whatever cases come before: which of them overlap decides what engines get wrong.
    random = np.random.default_rng(77)

    def boxes(*shape):
        corners = random.uniform(0, 0.8, (*shape, 2)).astype(np.float32)
        return np.concatenate([corners, corners + random.uniform(0.05, 0.4, (*shape, 2)).astype(np.float32)], -1)

    places, scores = boxes(40), random.uniform(0, 1, 40).astype(np.float32)
    ties = np.round(scores * 4) / np.float32(4)
    flipped = places[:, [2, 1, 0, 3]].copy()
    flat = places.copy()
    flat[::3, 2] = flat[::3, 0]
    open_sizes, others = [[None, 4], [None]], [[places[:7], scores[:7]], [places[:1], scores[:1]], [places[:0], scores[:0]]]
    for label, first, second in (("plain", places, scores), ("ties", places, ties), ("flipped", flipped, scores), ("flat", flat, ties)):
        case("NonMaxSuppressionV3", label, lambda b, s: raw.NonMaxSuppressionV3(boxes=b, scores=s, max_output_size=10, iou_threshold=0.3, score_threshold=0.2), [first, second], open_sizes, others)
    special = scores.copy()
    special[:4] = [NAN, INF, -INF, 0.25]
    case("NonMaxSuppression", "plain", lambda b, s: raw.NonMaxSuppression(boxes=b, scores=s, max_output_size=6, iou_threshold=0.4), [places, scores], open_sizes, others)
    case("NonMaxSuppressionV2", "plain", lambda b, s: raw.NonMaxSuppressionV2(boxes=b, scores=s, max_output_size=50, iou_threshold=0.4), [places, scores], open_sizes, others)
    case("NonMaxSuppressionV2", "special", lambda b, s: raw.NonMaxSuppressionV2(boxes=b, scores=s, max_output_size=50, iou_threshold=0.4), [places, special], open_sizes)
    case("NonMaxSuppressionV2", "below_zero", lambda b, s: raw.NonMaxSuppressionV2(boxes=b, scores=s - 2.0, max_output_size=50, iou_threshold=0.4), [places, scores], open_sizes)
    case("NonMaxSuppressionV3", "by_size", lambda b, s: raw.NonMaxSuppressionV3(boxes=b, scores=s, max_output_size=tf.minimum(5, tf.shape(b)[0]), iou_threshold=0.5, score_threshold=-INF), [places, scores], open_sizes, others)
    case("NonMaxSuppressionV3", "fed_thresholds", lambda b, s, i, t: raw.NonMaxSuppressionV3(boxes=b, scores=s, max_output_size=9, iou_threshold=i, score_threshold=t), [places, scores, np.float32(0.5), np.float32(0.5)], open_sizes + [[], []], [[places, scores, np.float32(0), np.float32(2)], [places, scores, np.float32(1), np.float32(0)]])
    for padded in (False, True):
        label = "padded" if padded else "plain"
        case("NonMaxSuppressionV4", label, lambda b, s, p=padded: raw.NonMaxSuppressionV4(boxes=b, scores=s, max_output_size=12, iou_threshold=0.3, score_threshold=0.4, pad_to_max_output_size=p), [places, ties], open_sizes, others)
        case("NonMaxSuppressionV5", label, lambda b, s, p=padded: raw.NonMaxSuppressionV5(boxes=b, scores=s, max_output_size=12, iou_threshold=0.3, score_threshold=0.4, soft_nms_sigma=0.0, pad_to_max_output_size=p), [places, ties], open_sizes, others)
    case("NonMaxSuppressionV5", "soft", lambda b, s: raw.NonMaxSuppressionV5(boxes=b, scores=s, max_output_size=12, iou_threshold=0.3, score_threshold=0.4, soft_nms_sigma=0.5), [places, scores], open_sizes, others)
    for label, padded in (("soft_padded", True), ("soft_ties", False)):
        case("NonMaxSuppressionV5", label, lambda b, s, p=padded: raw.NonMaxSuppressionV5(boxes=b, scores=s, max_output_size=12, iou_threshold=0.3, score_threshold=0.1, soft_nms_sigma=0.3, pad_to_max_output_size=p), [places, ties], open_sizes, others)
    case("NonMaxSuppressionV5", "soft_fed", lambda b, s, n: raw.NonMaxSuppressionV5(boxes=b, scores=s, max_output_size=n, iou_threshold=1.0, score_threshold=-INF, soft_nms_sigma=0.1), [places, scores, np.int32(5)], open_sizes + [[]], [[places, scores, np.int32(100)]])

    def combined(each=4, most=9, **attributes):
        return lambda b, s: list(raw.CombinedNonMaxSuppression(boxes=b, scores=s, max_output_size_per_class=each, max_total_size=most, iou_threshold=0.4, score_threshold=0.3, **attributes))

    shared, own = boxes(2, 25, 1) * 1.3 - 0.1, boxes(2, 25, 3) * 1.3 - 0.1
    chances = random.uniform(0, 1, (2, 25, 3)).astype(np.float32)
    open_sizes = [[None, None, 1, 4], [None, None, 3]]
    fewer = [[shared[:1, :3], chances[:1, :3]], [shared, chances * 0.2], [shared[:, :1], chances[:, :1]]]
    case("CombinedNonMaxSuppression", "shared", combined(), [shared, chances], open_sizes, fewer)
    case("CombinedNonMaxSuppression", "many", combined(100, 100), [shared, chances], open_sizes, fewer)
    case("CombinedNonMaxSuppression", "by_class", combined(), [own, chances], [[None, None, 3, 4], [None, None, 3]], [[own[:1, :3], chances[:1, :3]]])
    case("CombinedNonMaxSuppression", "padded_by_class", combined(2, 50, pad_per_class=True), [own, chances], [[None, 25, 3, 4], [None, 25, 3]])
    case("CombinedNonMaxSuppression", "as_they_are", combined(clip_boxes=False), [shared, chances], open_sizes, fewer)

    image = numbers(2, 9, 7, 3)
    cut = np.array([[0, 0, 1, 1], [0.1, 0.2, 0.7, 0.9], [0.9, 0.8, 0.1, 0.2], [-0.2, 0.3, 0.5, 1.3], [0.5, 0.5, 0.5, 0.5], [0, 0, 0.5, 1 / 3]], np.float32)
    which = np.array([0, 1, 0, 1, 1, 0], np.int32)
    crop = [[None, None, None, 3], [None, 4], [None]]
    for method in ("bilinear", "nearest"):
        for size in ([5, 4], [1, 1], [14, 14], [1, 3]):
            case("CropAndResize", f"{method}_{size[0]}x{size[1]}", lambda x, b, i, z=size, m=method: raw.CropAndResize(image=x, boxes=b, box_ind=i, crop_size=z, method=m, extrapolation_value=0.5), [image, cut, which], crop, [[image[:1], cut[:2], which[:2] * 0], [image, cut[:0], which[:0]]],
                 fails=[[image, cut[:1], np.array([2], np.int32)], [image, cut[:1], np.array([-1], np.int32)]])
    case("CropAndResize", "whole", lambda x, b, i: raw.CropAndResize(image=x, boxes=b, box_ind=i, crop_size=[5, 4]), [(np.abs(image) * 80).astype(np.uint8), cut, which])
    case("CropAndResize", "fed_channels", lambda x, b, i: raw.CropAndResize(image=x, boxes=b, box_ind=i, crop_size=[5, 4]), [image, cut, which], [[None] * 4, [None, 4], [None]])

    for dtype in (np.float32, np.int32, np.int64):
        rows = numbers(4, 3).astype(dtype)
        at = np.array([[0], [4], [2], [4]], np.int32)
        case("ScatterNd", f"rows_of_{np.dtype(dtype)}", lambda i, u: tf.scatter_nd(i, u, [6, 3]), [at, rows], [[None, 1], [None, 3]],
             fails=[[np.array([[6]], np.int32), rows[:1]], [np.array([[-1]], np.int32), rows[:1]]])
        into = numbers(6, 3).astype(dtype)
        for op in ("TensorScatterUpdate", "TensorScatterAdd", "TensorScatterMax", "TensorScatterMin"):
            case(op, "rows", lambda x, i, u, o=op: getattr(raw, o)(tensor=x, indices=i, updates=u), [into, at[:3].astype(np.int64), rows[:3]], [[None, 3], [None, 1], [None, 3]])
        case("Unique", "plain", lambda x: raw.Unique(x=x)[:2], [np.array([3, 1, 3, 2, 1, 0, 0], dtype)], [[None]], [[np.array([5], dtype)]])
        case("UniqueWithCounts", "plain", lambda x: list(raw.UniqueWithCounts(x=x, out_idx=tf.int64)), [np.array([3, 1, 3, 2, 1, 0, 0], dtype)])
    case("ScatterNd", "cells", lambda i, u, x: tf.scatter_nd(i, u, tf.shape(x)), [np.array([[0, 2], [1, 0], [0, 2]], np.int32), np.array([1.0, 2.0, 3.0], np.float32), numbers(2, 3)])
    case("TensorScatterUpdate", "truths", lambda x, i, u: raw.TensorScatterUpdate(tensor=x, indices=i, updates=u), [np.zeros((3, 2), bool), np.array([[1, 1]], np.int32), np.array([True])])
    deep = numbers(2, 3, 4, 5)
    case("GatherV2", "batch_and_axis", lambda x, i: tf.gather(x, i, batch_dims=1, axis=2), [deep, np.array([[3, 0], [1, 1]], np.int32)])
    case("GatherV2", "batch_and_last_axis", lambda x, i: tf.gather(x, i, batch_dims=1, axis=-1), [deep, np.array([[[3, 0, 4]], [[1, 1, 2]]], np.int64)], [[None, 3, None, 5], [None, 1, 3]])
    case("GatherV2", "two_batches", lambda x, i: tf.gather(x, i, batch_dims=2, axis=3), [deep, np.arange(12, dtype=np.int32).reshape(2, 3, 2) % 5])
    case("TopKV2", "by_size", lambda x: tf.math.top_k(x, tf.minimum(4, tf.shape(x)[1])), [ties.reshape(4, 10)], [[None, None]], [[ties[:6].reshape(2, 3)]])


def network_cases():
    image = numbers(2, 9, 9, 3)
    k1, k2, k3, b = numbers(3, 3, 3, 8), numbers(3, 3, 8, 8), numbers(1, 1, 3, 8), numbers(8)
    scale, offset, mean, variance = numbers(8), numbers(8), numbers(8), numbers(8, low=0.1, high=2)

    def norm(x):
        return raw.FusedBatchNormV3(x=x, scale=scale, offset=offset, mean=mean, variance=variance, epsilon=1e-3, is_training=False)[0]

    def residual(x):
        x = x / 255.0
        y = tf.nn.relu(norm(tf.nn.bias_add(tf.nn.conv2d(x, k1, 2, "SAME"), b)))
        y = norm(tf.nn.conv2d(tf.pad(y, [[0, 0], [1, 1], [1, 1], [0, 0]]), k2, 1, "VALID"))
        y = tf.nn.relu(y + tf.nn.conv2d(x, k3, 2, "SAME"))
        y = tf.concat([y, tf.nn.max_pool2d(y, 3, 1, "SAME")], 3)
        gate = tf.nn.sigmoid(tf.reduce_mean(y, [1, 2], keepdims=True))
        y = tf.reduce_mean(y * gate, [1, 2])
        return tf.nn.softmax(tf.matmul(y, tf.constant(numbers(16, 5)))), tf.argmax(y, -1)

    case("Network", "residual", residual, [image], runs=[[numbers(1, 9, 9, 3)]])
    case("Network", "flatten", lambda x: tf.reshape(tf.nn.relu(tf.nn.conv2d(x, k1, 2, "SAME")), [-1, 200]), [image])
    case("Network", "reused_convolution", lambda x: (lambda y: norm(y) + y)(tf.nn.conv2d(x, k1, 2, "SAME")), [image])
    case("Network", "half_plus_two", lambda x: tf.identity(x * 0.5) + tf.reshape(tf.constant([2.0]), []), [np.array([[1.0], [2.0], [0.0]], np.float32)])

    def attention(x):
        shape = tf.shape(x)
        heads = tf.transpose(tf.reshape(x, [shape[0], shape[1], 2, 4]), [0, 2, 1, 3])
        scores = tf.nn.softmax(tf.matmul(heads, heads, transpose_b=True) / 2.0)
        joined = tf.transpose(tf.matmul(scores, heads), [0, 2, 1, 3])
        y = tf.reshape(joined, [shape[0], shape[1], 8])
        centre = tf.reduce_mean(y, -1, keepdims=True)
        spread = tf.reduce_mean(tf.math.squared_difference(y, centre), -1, keepdims=True)
        y = (y - centre) * tf.math.rsqrt(spread + 1e-6)
        return 0.5 * y * (1.0 + tf.math.erf(y / np.float32(np.sqrt(2))))

    case("Network", "attention", attention, [numbers(2, 5, 8)], [[None, None, 8]], [[numbers(1, 7, 8)]])


def main():
    folder = sys.argv[1]
    os.makedirs(folder, exist_ok=True)
    for old in os.listdir(folder):
        if os.path.exists(os.path.join(folder, old, "case.txt")):
            shutil.rmtree(os.path.join(folder, old))
    for group in (unary_cases, cast_cases, binary_cases, shape_cases, gather_cases, reduction_cases, matrix_cases, image_cases, further_cases, detection_cases, network_cases):
        group()
    for group in fixtures_further.GROUPS + fixtures_half.GROUPS + fixtures_compound.GROUPS:
        group(case, numbers)
    failed = 0
    for one_case in CASES:
        try:
            write(folder, *one_case)
        except Exception as error:  # the rest is of use still; the exit code tells
            failed += 1
            print(f"{one_case[0]}.{one_case[1]}: {str(error).splitlines()[0]}", file=sys.stderr)
    print(f"{len(CASES) - failed} cases in {folder}")
    sys.exit(1 if failed else 0)


main()
