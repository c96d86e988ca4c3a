"""Cases of fixtures.py for operators beyond the usual networks: whole numbers, segments, windows, steps."""

import numpy as np
import tensorflow as tf

raw = tf.raw_ops
INF, NAN = float("inf"), float("nan")
LOW, HIGH = -(2**31), 2**31 - 1


def two(op):
    return lambda x, y: getattr(raw, op)(x=x, y=y)


def number_cases(case, numbers):
    """Whole numbers by whole numbers, bits, and functions of two real numbers."""
    for dtype in (np.int32, np.int64):
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
        a = np.array([7, -7, 7, -7, 0, 0, high, low, low, low + 1, 6, -6], dtype)
        b = np.array([2, 2, -2, -2, 5, -5, -1, 3, -3, -1, -3, 3], dtype)
        for op in "Div FloorDiv FloorMod TruncateDiv TruncateMod Mod".split():
            # TensorFlow's words for the error of this one are those of a slip of its own.
            fails = [] if op == "TruncateDiv" else [[a, np.where(np.arange(12) == 3, 0, b).astype(dtype)]]
            case(op, "fed", two(op), [a, b], runs=[[a[:0], b[:0]]], fails=fails)
            case(op, "by_minus_one", lambda x, o=op: two(o)(x, tf.constant([-1, 2], x.dtype)), [a.reshape(6, 2)])
        case("FloorDiv", "extremes", lambda x: two("FloorDiv")(x, tf.constant([3, -3, 10], x.dtype)), [np.array([[low, low, low], [high, high, high]], dtype)])
        case("FloorDiv", "broadcast", two("FloorDiv"), [a.reshape(3, 4), np.array([[3], [-4], [5]], dtype)])
        for op in "BitwiseAnd BitwiseOr BitwiseXor".split():
            case(op, "plain", two(op), [a, b])
        case("Invert", "plain", lambda x: raw.Invert(x=x), [a])
        case("LeftShift", "plain", two("LeftShift"), [a, (np.arange(12) * 3 - 3).astype(dtype)])
        case("RightShift", "plain", two("RightShift"), [a, (np.arange(12) * 3 - 3).astype(dtype)])
        case("RightShift", "far", two("RightShift"), [a, np.full_like(a, np.iinfo(dtype).bits - 1)], runs=[[a, np.full_like(a, 99)]])
        case("LeftShift", "far", two("LeftShift"), [a, np.full_like(a, np.iinfo(dtype).bits - 1)])
    for dtype in (np.uint8, np.int8, np.int16):
        case("BitwiseAnd", "narrow", two("BitwiseAnd"), [np.array([7, 100, 3], dtype), np.array([5, 99, 8], dtype)])
        case("Invert", "narrow", lambda x: raw.Invert(x=x), [np.array([7, 100, 3], dtype)])
    signs = np.array([0.0, -0.0, 1.0, -1.0, INF, -INF, NAN, 1e-30, 3e38], np.float32)
    pairs = np.stack(np.meshgrid(signs, signs)).reshape(2, -1)
    for op in "Atan2 Xdivy Xlogy Xlog1py".split():
        function = (lambda y, x: raw.Atan2(y=y, x=x)) if op == "Atan2" else two(op)
        case(op, "plain", function, [numbers(3, 5), np.abs(numbers(3, 5))])
        case(op, "special", function, list(pairs.copy()))
        case(op, "broadcast", function, [numbers(3, 1), np.abs(numbers(4))], [[None, 1], [4]])
    case("Xdivy", "double", two("Xdivy"), [numbers(3, 5).astype(np.float64), numbers(3, 5).astype(np.float64)])
    case("Atan2", "around", lambda y, x: raw.Atan2(y=y, x=x), [np.sin(np.arange(40)).astype(np.float32), np.cos(np.arange(40)).astype(np.float32)])
    case("ApproximateEqual", "plain", lambda x, y: raw.ApproximateEqual(x=x, y=y, tolerance=0.25), [np.array([1, 1, 1, NAN], np.float32), np.array([1.2, 1.25, 0.5, 1], np.float32)])
    case("L2Loss", "plain", lambda x: raw.L2Loss(t=x), [numbers(3, 5)])
    zeros = np.array([[-1.0, -0.0, 0.0, -0.0], [-0.0, -2.0, -0.0, -0.0], [3.0, NAN, 5.0, -INF]], np.float32)

    def is_negative_zero(x):
        bits = raw.BitwiseAnd(x=tf.bitcast(x, tf.int32), y=tf.constant(LOW))
        return tf.logical_and(raw.Equal(x=x, y=0.0), raw.Less(x=bits, y=0))

    case("Bitcast", "negative_zero", is_negative_zero, [zeros])
    case("Bitcast", "of_others", lambda x: tf.bitcast(x, tf.int32), [zeros], expect="refused")
    for op in ("Lgamma", "Digamma", "Erfinv"):
        case(op, "unknown", lambda x, o=op: getattr(raw, o)(x=x), [np.abs(numbers(3, low=0.1, high=0.9))], expect="refused")


def joint_cases(case, numbers):
    """What is put together out of parts, and losses."""
    first, second = np.array([5, 1], np.int32), np.array([[0, 2], [4, 3]], np.int32)
    for rows, squares in ((numbers(2, 3), numbers(2, 2, 3)), (np.arange(6).reshape(2, 3) * 2**40, np.arange(12).reshape(2, 2, 3))):
        stitch = lambda a, b, x, y: tf.dynamic_stitch([a, b], [x, y])
        case("DynamicStitch", f"{rows.dtype}", stitch, [first, second, rows, squares], [[None], [None, None], [None, 3], [None, None, 3]],
             [[first[1:], second, rows[1:], squares], [np.array([1, 1], np.int32), second, rows, squares], [first[:0], np.array([[0, 0], [1, 1]], np.int32), rows[:0], squares]])
    case("DynamicStitch", "numbers", lambda a, x: tf.dynamic_stitch([a], [x]), [second // 2, numbers(2, 2)], [[None, None], [None, None]], [[second[:0], numbers(0, 2)]])
    case("ParallelDynamicStitch", "plain", lambda x: raw.ParallelDynamicStitch(indices=[[0, 2], [1]], data=[x[:2], x[2:]]), [numbers(3, 4)])

    def parted(x, kinds):
        parts = tf.dynamic_partition(x, kinds, 2)
        places = tf.dynamic_partition(tf.range(tf.shape(x)[0]), kinds, 2)
        return tf.dynamic_stitch(places, [parts[0] * 2.0, parts[1] - 1.0])

    case("DynamicStitch", "parted", parted, [numbers(5, 2), np.array([1, 0, 0, 1, 1], np.int32)], [[None, 2], [None]])
    labels = np.abs(numbers(4, 5))
    labels /= labels.sum(1, keepdims=True)
    loss = lambda x, y: list(raw.SoftmaxCrossEntropyWithLogits(features=x, labels=y))
    for kind in (np.float32, np.float64):
        case("SoftmaxCrossEntropyWithLogits", "plain", loss, [(numbers(4, 5) * 9).astype(kind), labels.astype(kind)], [[None, 5], [None, 5]], [[numbers(2, 5).astype(kind), labels[:2].astype(kind)]])
    case("SoftmaxCrossEntropyWithLogits", "one_label", loss, [numbers(4, 5), labels[:1]], [[None, 5], [1, 5]])


def order_cases(case, numbers):
    """The same elements elsewhere; numbers in steps."""
    x = numbers(3, 4, 5)
    whole = np.arange(60, dtype=np.int64).reshape(3, 4, 5) * 2**33
    opened = [[None, None, 5]]
    for array in (x, whole, x > 0):
        case("Roll", "one", lambda x: tf.roll(x, 1, 0), [array], opened, [[array[:1]], [array[:0]]])
        case("Roll", "several", lambda x: tf.roll(x, [-2, 7, 3], [1, 2, 1]), [array], opened)
        case("ReverseSequence", "plain", lambda x, n: tf.reverse_sequence(x, n, seq_axis=1), [array, np.array([0, 4, 2], np.int32)], [[None, None, 5], [None]], [[array[:1], np.array([1], np.int32)]],
             fails=[[array, np.array([0, 5, 2], np.int32)]])
        case("ReverseSequence", "other_axes", lambda x, n: raw.ReverseSequence(input=x, seq_lengths=n, seq_dim=0, batch_dim=2), [array, np.array([0, 1, 2, 3, 3], np.int64)], [[None, 4, 5], [5]])
        turned = [False, True, True]
        case("Reverse", "flagged", lambda x: raw.Reverse(tensor=x, dims=turned), [array], opened)
    case("GuaranteeConst", "plain", lambda x: raw.GuaranteeConst(input=x), [x])
    for kind in (np.float32, np.float64, np.int32, np.int64):
        pair = [(numbers(4, 2, 3) * 9).astype(kind), (numbers(4, 2, 3) * 9).astype(kind)]
        case("Cross", "plain", lambda a, b: tf.linalg.cross(a, b), pair, [[None, None, 3]] * 2, [[pair[0][:1], pair[1][:1]]])
    for kind in (np.int32, np.int64):
        cells = np.array([0, 7, 23, 5], kind)
        case("UnravelIndex", "plain", lambda i, k=kind: tf.unravel_index(i, np.array([2, 3, 4], k)), [cells], [[None]], [[cells[:1]], [cells - 1]], fails=[[np.array([3, 24], kind)], [cells[:0]]])
        case("UnravelIndex", "one", lambda i, k=kind: tf.unravel_index(i, np.array([5, 9], k)), [kind(31)], [[]])
        case("UnravelIndex", "sized", lambda i, x, k=kind: tf.unravel_index(i, tf.shape(x, out_type=k)), [cells, numbers(4, 6)], [[None], [None, None]], fails=[[cells, numbers(4, 0)]])
    case("Roll", "fed", lambda x, s: tf.roll(x, s, 1), [x, np.int32(-9)], [[None, None, 5], []])
    for axis in (0, 1, -1):
        for exclusive in (False, True):
            for reverse in (False, True):
                label = f"{axis}_{exclusive}_{reverse}".lower().replace("-", "m")
                case("Cumprod", label, lambda x, a=axis, e=exclusive, r=reverse: tf.math.cumprod(x, a, e, r), [x], [[None, None, 5]], [[x[:1]]])
                case("Cumsum", label, lambda x, a=axis, e=exclusive, r=reverse: tf.cumsum(x, a, e, r), [x], [[None, None, 5]], [[x[:1]]])
    case("Cumprod", "overflow", lambda x: tf.math.cumprod(x, 1), [np.array([[1e30, 1e30, 1e-30, 0.0], [2.0, INF, 0.0, 1.0]], np.float32)])
    case("Cumprod", "plain", lambda x: tf.math.cumprod(x, 1), [np.array([[2**20, 2**11, 3], [1, -2, 3]], np.int32)])
    case("Cumprod", "plain", lambda x: tf.math.cumprod(x, 1), [np.array([[2**40, 2**20, 3], [1, -2, 3]], np.int64)])
    case("LinSpace", "constant", lambda x: x + tf.linspace(0.5, 2.0, 7), [np.float32(1)])
    case("LinSpace", "fed", lambda a, b, n: raw.LinSpace(start=a, stop=b, num=n), [np.float32(-1), np.float32(0.3), np.int32(11)], [[], [], []], [[np.float32(2), np.float32(5), np.int32(1)], [np.float32(2), np.float32(-5), np.int32(2)]],
         fails=[[np.float32(2), np.float32(5), np.int32(0)]])
    for dtype in (np.int32, np.int64):
        number = lambda *all: [dtype(n) for n in all]
        case("Range", "fed", lambda a, b, d: tf.range(a, b, d), number(0, 10, 3), [[], [], []], [number(5, -6, -2), number(3, 3, 1)],
             fails=[number(0, 5, 0), number(5, 0, 1), number(0, 5, -1)])
    case("Split", "open", lambda x: tf.split(x, 3, axis=1), [numbers(2, 6)], [[None, None]], [[numbers(1, 3)], [numbers(2, 0)]], fails=[[numbers(2, 7)]])
    for mode in ("REFLECT", "SYMMETRIC"):
        fewer = 2 if mode == "REFLECT" else 1
        case("MirrorPad", f"open_{mode.lower()}", lambda x, m=mode: tf.pad(x, [[0, 0], [1, 2], [0, 0]], m), [numbers(2, 4, 3)], [[None, None, 3]], [[numbers(2, 3, 3)]], fails=[[numbers(2, fewer, 3)]])
    for dtype in (np.int32, np.int64):
        sizes = lambda *all: np.array(all, dtype)
        case("BroadcastArgs", "fed", lambda a, b: raw.BroadcastArgs(s0=a, s1=b), [sizes(3, 1, 5), sizes(4, 1)], [[3], [2]], [[sizes(1, 1, 1), sizes(1, 1)]], fails=[[sizes(3, 2, 5), sizes(3, 5)]])
    case("BroadcastArgs", "sizes", lambda x: tf.broadcast_to(tf.constant([1.0]), tf.broadcast_dynamic_shape(tf.shape(x), tf.constant([1, 3, 1]))), [numbers(2, 1, 4)], [[None, 1, 4]])


def matrix_cases(case, numbers):
    """Diagonals."""
    for array in (numbers(2, 3), np.array([[NAN, 1, INF]], np.float32), (np.arange(6).reshape(2, 3) * 2**40).astype(np.int64)):
        label = "special" if np.isnan(array.astype(np.float64)).any() else "plain"
        case("MatrixDiag", label, lambda x: raw.MatrixDiag(diagonal=x), [array], [[None, None]])
        case("MatrixDiagV3", label, lambda x: tf.linalg.diag(x), [array], [[None, 3]])
    case("MatrixDiagV3", "around", lambda x: tf.linalg.diag(x, padding_value=-2.5), [numbers(2, 3)])
    case("MatrixDiagV3", "other", lambda x: tf.linalg.diag(x, k=1), [numbers(2, 3)], expect="refused")
    for shape in ((2, 3, 4), (1, 4, 3), (3, 3)):
        array, label = numbers(*shape), "x".join(map(str, shape))
        opened = [[None] * len(shape)]
        case("MatrixDiagPart", label, lambda x: raw.MatrixDiagPart(input=x), [array], opened)
        case("MatrixDiagPartV3", label, lambda x: tf.linalg.diag_part(x), [array], opened)
        inner = numbers(*shape[:-2], min(shape[-2:]))
        case("MatrixSetDiag", label, lambda x, d: raw.MatrixSetDiag(input=x, diagonal=d), [array, inner], opened + [[None] * (len(shape) - 1)])
        case("MatrixSetDiagV3", label, lambda x, d: tf.linalg.set_diag(x, d), [array, inner], opened + [[None] * (len(shape) - 1)])
    case("Diag", "plain", lambda x: raw.Diag(diagonal=x), [numbers(3)])


def search_cases(case, numbers):
    """Places of values among others."""
    edges = np.array([-3.0, -1.0, -1.0, 0.0, 0.5, 7.25, 100.0], np.float32)
    values = np.array([[-INF, -3.0, -1.0, -0.0], [0.25, 100.0, INF, NAN]], np.float32)
    case("Bucketize", "plain", lambda x: raw.Bucketize(input=x, boundaries=list(edges)), [values])
    case("Bucketize", "double", lambda x: raw.Bucketize(input=x, boundaries=[0.1, 0.2]), [np.array([0.1, np.float32(0.1), 0.2, 0.15])])
    for dtype in (np.int32, np.int64):
        case("Bucketize", "whole", lambda x: raw.Bucketize(input=x, boundaries=[-1.5, 2.0, 16777216.0]), [np.array([-2, -1, 2, 3, 2**24, 2**24 + 1, 2**31 - 1], dtype)])
    case("Bucketize", "none", lambda x: raw.Bucketize(input=x, boundaries=[]), [values])
    rows = np.sort(numbers(2, 6), -1)
    for array, wanted in ((rows, np.concatenate([numbers(2, 3), rows[:, :2]], 1)), (np.array([[1, 1, 3], [2, 2**40, 2**41]], np.int64), np.array([[0, 1], [2**40, 2**50]], np.int64))):
        case("LowerBound", "plain", lambda x, v: raw.LowerBound(sorted_inputs=x, values=v), [array, wanted], [[None, None], [None, None]])
        case("UpperBound", "plain", lambda x, v: raw.UpperBound(sorted_inputs=x, values=v, out_type=tf.int64), [array, wanted], [[None, None], [None, None]])
    for dtype in (np.int32, np.int64):
        case("InvertPermutation", "plain", lambda x: tf.math.invert_permutation(x), [np.array([3, 0, 2, 1], dtype)], [[None]], [[np.array([0], dtype)]],
             fails=[[np.array([1, 1, 0], dtype)], [np.array([0, 3], dtype)], [np.array([-1, 0], dtype)]])
        case("ListDiff", "plain", lambda x, y: list(raw.ListDiff(x=x, y=y)), [np.array([5, 1, 5, 2, 9], dtype), np.array([1, 9, 9], dtype)], [[None], [None]], [[np.array([1], dtype), np.array([1], dtype)], [np.array([7], dtype), np.array([], dtype)]])
        case("UniqueV2", "plain", lambda x: raw.UniqueV2(x=x, axis=np.array([0], np.int32))[:2], [np.array([3, 1, 3, 2**31 - 1], dtype)], [[None]])
    chances = np.array([[0.1, 0.3, 0.3, 0.2], [0.9, 0.5, 0.7, 0.1], [NAN, 1.0, 2.0, 3.0], [INF, 1.0, 2.0, 3.0], [1.0, 2.0, 3.0, 4.0]], np.float32)
    targets = np.array([1, 2, 3, 1, 9], np.int32)
    for k in (1, 2, 4):
        case("InTopKV2", f"{k}", lambda p, t, k=k: raw.InTopKV2(predictions=p, targets=t, k=k), [chances, targets])
    case("InTopKV2", "fed", lambda p, t, k: raw.InTopKV2(predictions=p, targets=t, k=k), [chances, targets.astype(np.int64), np.int64(2)], [[None, None], [None], []])


def segment_cases(case, numbers):
    """Rows that belong together, counts, parts."""
    ids = np.array([0, 0, 2, 2, 2, 5], np.int32)
    opened = [[None, 3], [None]]
    for dtype in (np.float32, np.int32, np.int64):
        rows = (numbers(6, 3) * 5).astype(dtype)
        for op in "SegmentSum SegmentMean SegmentMax SegmentMin SegmentProd".split():
            if op == "SegmentMean" and dtype != np.float32:
                continue
            case(op, "plain", lambda x, i, o=op: getattr(raw, o)(data=x, segment_ids=i), [rows, ids], opened, [[rows[:1], ids[:1]], [rows[:0], ids[:0]]],
                 fails=[[rows[:2], np.array([1, 0], np.int32)], [rows[:2], np.array([-1, 0], np.int32)]])
        for op in "UnsortedSegmentSum UnsortedSegmentMax UnsortedSegmentMin UnsortedSegmentProd".split():
            case(op, "plain", lambda x, i, o=op: getattr(raw, o)(data=x, segment_ids=i, num_segments=5), [rows, np.array([3, 0, -1, 3, 0, 2], np.int32)], opened, [[rows[:0], ids[:0]]],
                 fails=[[rows[:1], np.array([5], np.int32)], [rows[:1], np.array([7], np.int32)]])
        case("UnsortedSegmentSum", "deep", lambda x, i, n: raw.UnsortedSegmentSum(data=x, segment_ids=i, num_segments=n), [rows.reshape(2, 3, 3), np.array([[3, 0, -1], [3, 0, 2]], np.int64), np.int32(4)], [[None, 3, 3], [None, 3], []])
    rows = numbers(7, 3)
    at = np.array([6, 0, 0, 3, 2, 6], np.int32)
    for op in "SparseSegmentSum SparseSegmentMean SparseSegmentSqrtN".split():
        case(op, "plain", lambda x, i, s, o=op: getattr(raw, o)(data=x, indices=i, segment_ids=s), [rows, at, ids], [[None, 3], [None], [None]],
             fails=[[rows, at + 1, ids], [rows, at, ids[::-1].copy()]])
    for dtype in (np.int32, np.int64):
        values = np.array([[1, 4, 1], [0, 9, 4]], dtype)
        empty = np.zeros([0], np.float32)
        for binary in (False, True):
            count = lambda x, b=binary: raw.DenseBincount(input=x, size=tf.constant(6, x.dtype), weights=empty, binary_output=b)
            case("DenseBincount", f"rows_{binary}".lower(), count, [values], [[None, None]], [[values[:, :1]], [values[:0]]], fails=[[-values]])
            case("DenseBincount", f"vector_{binary}".lower(), count, [values[0]], [[None]])
        case("DenseBincount", "fed_size", lambda x, n: raw.DenseBincount(input=x, size=n, weights=empty), [values, dtype(6)], [[None, 3], []], [[values, dtype(1)]], fails=[[values, dtype(-1)]])
        case("DenseBincount", "weighed", lambda x, w: raw.DenseBincount(input=x, size=tf.constant(6, x.dtype), weights=w), [values, numbers(2, 3)], [[None, 3], [None, 3]])
    case("Bincount", "plain", lambda x: raw.Bincount(arr=x, size=6, weights=np.zeros([0], np.int32)), [np.array([1, 4, 1, 7], np.int32)])
    parts = np.array([2, 0, 2, 1], np.int32)
    case("DynamicPartition", "rows", lambda x, p: tf.dynamic_partition(x, p, 4), [numbers(4, 3), parts], [[None, 3], [None]], fails=[[numbers(1, 3), np.array([4], np.int32)], [numbers(1, 3), np.array([-1], np.int32)]])
    case("DynamicPartition", "whole", lambda x, p: tf.dynamic_partition(x, p, 3), [np.arange(4, dtype=np.int64) * 2**40, parts])
    for dtype in (np.int32, np.int64):
        cells = np.array([[0, 2], [1, 0], [1, 3]], dtype)
        dense = lambda i, v, **a: raw.SparseToDense(sparse_indices=i, output_shape=tf.constant([2, 4], i.dtype), sparse_values=v, default_value=-1.5, **a)
        case("SparseToDense", "cells", dense, [cells, numbers(3)], [[None, 2], [None]],
             fails=[[cells[::-1].copy(), numbers(3)], [cells[[0, 0, 1]], numbers(3)], [cells + 1, numbers(3)], [cells - 1, numbers(3)]])
        case("SparseToDense", "in_any_order", lambda i, v: dense(i, v, validate_indices=False), [cells[::-1].copy(), numbers(3)], [[None, 2], [None]])
        case("SparseToDense", "vector", lambda i: raw.SparseToDense(sparse_indices=i, output_shape=tf.constant([9], i.dtype), sparse_values=7.0, default_value=0.0), [np.array([1, 4, 8], dtype)])
        case("TensorScatterSub", f"rows_{np.dtype(dtype)}", lambda x, i, u: raw.TensorScatterSub(tensor=x, indices=i, updates=u), [numbers(6, 3), np.array([[0], [4], [0]], dtype), numbers(3, 3)])
    case("TensorScatterSub", "whole", lambda x, i, u: raw.TensorScatterSub(tensor=x, indices=i, updates=u), [np.arange(4, dtype=np.int64), np.array([[0], [3]], np.int32), np.array([2**40, 5])])


def window_cases(case, numbers):
    """Windows, blocks and sizes of images."""
    image = numbers(2, 6, 8, 3)
    whole = (np.abs(image) * 80).astype(np.uint8)
    opened = [[None, None, None, 3]]
    others = [[numbers(1, 4, 2, 3)], [numbers(1, 2, 6, 3)]]
    for padding in ("SAME", "VALID"):
        for stride, rate in ((1, 1), (2, 1), (2, 2)):
            patches = lambda x, p=padding, s=stride, r=rate: tf.image.extract_patches(x, [1, 3, 2, 1], [1, s, s, 1], [1, r, r, 1], p)
            case("ExtractImagePatches", f"{padding}_{stride}_{rate}".lower(), patches, [image])
    case("ExtractImagePatches", "open", lambda x: tf.image.extract_patches(x, [1, 2, 2, 1], [1, 2, 2, 1], [1] * 4, "VALID"), [image], opened, others)
    case("ExtractImagePatches", "special", lambda x: tf.image.extract_patches(x, [1, 2, 2, 1], [1, 1, 1, 1], [1] * 4, "VALID"), [np.array([NAN, 1, INF, 2, 3, 4], np.float32).reshape(1, 2, 3, 1)])
    case("ExtractImagePatches", "whole", lambda x: tf.image.extract_patches(x, [1, 2, 2, 1], [1, 2, 2, 1], [1] * 4, "VALID"), [whole])
    for label, sizes in (("up", (11, 9)), ("down", (4, 3)), ("one", (1, 1)), ("same", (6, 8))):
        for flags in (dict(), dict(align_corners=True), dict(half_pixel_centers=True)):
            name = label + "".join("_" + flag for flag in flags)
            case("ResizeBicubic", name, lambda x, z=sizes, f=flags: raw.ResizeBicubic(images=x, size=z, **f), [image])
        for flags in (dict(), dict(align_corners=True)):
            name = label + "".join("_" + flag for flag in flags)
            case("ResizeArea", name, lambda x, z=sizes, f=flags: raw.ResizeArea(images=x, size=z, **f), [image])
    case("ResizeBicubic", "whole", lambda x: raw.ResizeBicubic(images=x, size=[9, 5], half_pixel_centers=True), [whole])
    case("ResizeArea", "whole", lambda x: raw.ResizeArea(images=x, size=[4, 5]), [whole])
    # A wide picture of full contrast shows where the cells of a resizing lie: a place far from the edge that is
    # rounded elsewhere is another colour.
    picture = np.random.default_rng(5).integers(0, 2, (1, 6, 500, 3)).astype(np.float32) * 255
    for flags in (dict(), dict(align_corners=True), dict(half_pixel_centers=True)):
        name = "_".join(["picture", *flags])
        linear = lambda x, z, f=flags: raw.ResizeBilinear(images=x, size=z, **f)
        fed = [[picture[:, :k], np.array(z, np.int32)] for k, z in ((5, (4, 192)), (6, (3, 700)), (2, (1, 1)), (1, (5, 30)))]
        for dtype in (np.float32, np.uint8, np.float16):
            runs = [[array.astype(dtype), z] for array, z in fed]
            case("ResizeBilinear", name, linear, [picture.astype(dtype), np.array([9, 430], np.int32)], opened + [[2]], runs)
        case("ResizeBilinear", f"{name}_4x192", lambda x, f=linear: f(x, [4, 192]), [picture], opened, [[array] for array, _ in fed])
    case("ResizeBicubic", "open", lambda x: raw.ResizeBicubic(images=x, size=[9, 5]), [image], opened, others)
    for flags in (dict(), dict(align_corners=True), dict(half_pixel_centers=True)):
        name = "fed" + "".join("_" + flag for flag in flags)
        for kind, array in (("", image), ("_whole", whole)):
            case("ResizeBicubic", name + kind, lambda x, z, f=flags: raw.ResizeBicubic(images=x, size=z, **f), [array, np.array([9, 5], np.int32)], opened + [[2]],
                 [[array[:1, :k], np.array(z, np.int32)] for k, z in ((1, (7, 8)), (4, (2, 3)), (6, (1, 1)), (5, (5, 30)))])
    fine = [[numbers(1, 4, 2, 3)], [numbers(3, 2, 6, 3)]]
    pads = [[0, 0], [2, 0]]
    case("SpaceToBatchND", "open", lambda x: tf.space_to_batch(x, [2, 2], pads), [image], opened, fine, fails=[[numbers(1, 3, 4, 3)]])
    case("SpaceToBatchND", "fed", lambda x, p: tf.space_to_batch(x, [2, 3], p), [image, np.array([[0, 0], [1, 0]], np.int32)], opened + [[2, 2]], [[image, np.array([[1, 3], [1, 3]], np.int32)]],
         fails=[[image, np.array([[0, 1], [1, 0]], np.int32)], [image, np.array([[2, -2], [1, 0]], np.int32)]])
    case("SpaceToBatchND", "open_one", lambda x: tf.space_to_batch(x, [2], [[0, 0]]), [image], opened, fine)
    batches = numbers(12, 2, 3, 2)
    case("BatchToSpaceND", "open", lambda x: tf.batch_to_space(x, [2, 3], [[0, 0], [1, 2]]), [batches], [[None, None, None, 2]], [[numbers(6, 1, 2, 2)]], fails=[[batches[:7]], [numbers(6, 1, 0, 2)]])
    case("BatchToSpaceND", "fed", lambda x, p: tf.batch_to_space(x, [2, 3], p), [batches, np.array([[1, 1], [1, 2]], np.int64)], [[None, 2, 3, 2], [2, 2]], fails=[[batches, np.array([[3, 2], [0, 0]], np.int64)], [batches, np.array([[-1, 0], [0, 0]], np.int64)]])
    kernel = numbers(3, 3, 3, 4)
    for rate in (2, 3):
        def dilated(x, r=rate):
            base, crops = tf.compat.v1.required_space_to_batch_paddings(tf.shape(x)[1:3], [r, r])
            return tf.batch_to_space(tf.nn.conv2d(tf.space_to_batch(x, [r, r], base), tf.constant(kernel), 1, "SAME"), [r, r], crops)

        case("BatchToSpaceND", f"dilated_{rate}", dilated, [image], opened, others)
    for block in (2, 3):
        deep = numbers(2, block * block * 2, 3, 4)
        case("DepthToSpace", f"channels_first_{block}", lambda x, b=block: raw.Transpose(x=raw.DepthToSpace(input=raw.Transpose(x=x, perm=[0, 2, 3, 1]), block_size=b), perm=[0, 3, 1, 2]), [deep])
    # Sizes of a transposed convolution that are computed from its input's.
    small = numbers(2, 3, 4, 3)
    for padding, side, stride in (("SAME", 3, 2), ("SAME", 2, 3), ("SAME", 4, 2), ("VALID", 3, 2), ("VALID", 2, 3), ("SAME", 3, 1)):
        def turned(x, p=padding, k=side, s=stride):
            shape, more = tf.shape(x), max(k - s, 0) if p == "VALID" else 0
            sizes = tf.stack([shape[0], shape[1] * s + more, shape[2] * s + more, 4])
            return tf.nn.conv2d_transpose(x, tf.constant(np.linspace(-1, 1, k * k * 12, dtype=np.float32).reshape(k, k, 4, 3)), sizes, s, p)

        case("Conv2DBackpropInput", f"open_{padding}_{side}_{stride}".lower(), turned, [small], [[None, None, None, 3]], [[numbers(1, 5, 1, 3)], [numbers(3, 1, 2, 3)]])
    sized = lambda x, z: raw.Conv2DBackpropInput(input_sizes=z, filter=np.linspace(-1, 1, 108, dtype=np.float32).reshape(3, 3, 4, 3), out_backprop=x, strides=[1, 2, 2, 1], padding="SAME")
    size = lambda *all: np.array(all, np.int32)
    case("Conv2DBackpropInput", "fed_sizes", sized, [small, size(2, 6, 8, 4)], [[None, None, None, 3], [4]], [[small, size(2, 5, 7, 4)]],
         fails=[[small, size(2, 7, 8, 4)], [small, size(1, 6, 8, 4)], [small, size(2, 6, 8, 3)]])
    case("Conv2DBackpropInput", "channels_first", lambda x: raw.Transpose(x=sized(raw.Transpose(x=x, perm=[0, 2, 3, 1]), tf.stack([tf.shape(x)[0], tf.shape(x)[2] * 2, 8, 4])), perm=[0, 3, 1, 2]), [numbers(2, 3, 3, 4)], [[None, 3, None, 4]])
    depth = np.linspace(-1, 1, 54, dtype=np.float32).reshape(3, 3, 3, 2)
    for stride, side in ((1, (6, 8)), (2, (12, 15))):
        case("DepthwiseConv2dNativeBackpropInput", f"{stride}", lambda x, s=stride, z=side: raw.DepthwiseConv2dNativeBackpropInput(input_sizes=tf.stack([tf.shape(x)[0], *z, 3]), filter=depth, out_backprop=x, strides=[1, s, s, 1], padding="SAME"), [numbers(2, 6, 8, 6)], [[None, 6, 8, 6]])


def step_cases(case, numbers):
    """Numbers rounded to steps."""
    x = numbers(4, 30)
    edges = np.array([[-0.0, 0.0, 0.5, 1.5, 2.5, -0.5, 100.0, -100.0, INF, -INF]], np.float32)
    for array, label in ((x, "plain"), (edges, "edges")):
        case("FakeQuantWithMinMaxArgs", label, lambda x: raw.FakeQuantWithMinMaxArgs(inputs=x, min=-1.3, max=2.1), [array])
        case("FakeQuantWithMinMaxVars", label, lambda x: raw.FakeQuantWithMinMaxVars(inputs=x, min=-1.3, max=2.1, num_bits=4, narrow_range=True), [array])
        case("FakeQuantWithMinMaxVars", f"{label}_positive", lambda x: raw.FakeQuantWithMinMaxVars(inputs=x, min=0.0, max=6.0), [array])
        for mode in ("HALF_TO_EVEN", "HALF_UP"):
            for signed in (True, False):
                for narrow in (True, False):
                    low = -2.0 if signed else 0.0
                    build = lambda x, m=mode, s=signed, n=narrow, l=low: raw.QuantizeAndDequantizeV2(input=x, input_min=l, input_max=2.5, signed_input=s, num_bits=3, range_given=True, round_mode=m, narrow_range=n)
                    case("QuantizeAndDequantizeV2", f"{label}_{mode}_{signed}_{narrow}".lower(), build, [array])
        case("QuantizeAndDequantizeV3", label, lambda x: raw.QuantizeAndDequantizeV3(input=x, input_min=-2.0, input_max=2.5, num_bits=4), [array])
        case("QuantizeAndDequantizeV4", label, lambda x: raw.QuantizeAndDequantizeV4(input=x, input_min=-2.0, input_max=2.5, range_given=True), [array])
    case("QuantizeAndDequantizeV2", "by_itself", lambda x: raw.QuantizeAndDequantizeV2(input=x, input_min=0.0, input_max=0.0), [x], expect="refused")
    case("FakeQuantWithMinMaxVarsPerChannel", "plain", lambda x: raw.FakeQuantWithMinMaxVarsPerChannel(inputs=x, min=[-1.0, -0.2, 0.0], max=[1.0, 3.0, 2.0]), [numbers(2, 5, 3)])


def image_cases(case, _):
    """Images of few channels and a number for each of them."""
    dice = np.random.default_rng(44)
    image = dice.normal(size=(2, 16, 17, 3)).astype(np.float32)
    image[0, 1, 2, 1], image[1, 0, 0, 2], image[1, 15, 16, 0] = np.nan, INF, -INF
    each = np.array([0.5, -2.0, 3.0], np.float32)
    for op in ("AddV2", "Sub", "Mul", "RealDiv", "Maximum"):
        build = getattr(raw, op)
        case(op, "image", lambda x, build=build: build(x=x, y=tf.constant(each)), [image], runs=[[image[:0]]])
        case(op, "of_image", lambda x, build=build: build(x=tf.constant(each.reshape(1, 1, 1, 3)), y=x), [image])
    case("Mul", "image_of_one", lambda x: raw.Mul(x=x, y=tf.constant([2.0])), [image[..., :1]])
    case("Mul", "image_by_columns", lambda x: raw.Mul(x=x, y=tf.constant(dice.normal(size=(17, 3)).astype(np.float32))), [image])
    below = -1 - np.abs(dice.normal(size=(1, 6, 7, 3))).astype(np.float32)
    zeros = [[0, 0], [1, 1], [1, 2], [0, 0]]
    pool = lambda x: tf.nn.max_pool2d(x, 3, 2, "VALID")
    case("MaxPool", "of_padded", lambda x: pool(tf.pad(x, zeros)), [below])
    case("MaxPool", "of_padded_filters", lambda x: pool(tf.pad(tf.nn.conv2d(x, tf.ones([1, 1, 3, 16]), 1, "SAME"), zeros)), [below])
    case("MaxPool", "of_padded_by_number", lambda x: pool(tf.pad(x, zeros, constant_values=-0.5)), [below])
    case("AvgPool", "of_padded", lambda x: tf.nn.avg_pool2d(tf.pad(x, zeros), 3, 2, "VALID"), [below])
    case("Greater", "image", lambda x: raw.Greater(x=x, y=tf.constant(each)), [image])
    case("Mul", "image_of_ints", lambda x: raw.Mul(x=x, y=tf.constant([2, 3, 4])), [np.arange(768, dtype=np.int32).reshape(1, 16, 16, 3)])


GROUPS = (number_cases, joint_cases, order_cases, matrix_cases, search_cases, segment_cases, window_cases, step_cases, image_cases)
