"""Small graphs of half precision: what a Keras network of `mixed_float16` is made of."""

import numpy as np
import tensorflow as tf

raw = tf.raw_ops


def layers(case, numbers):
    half = lambda *shape, **more: numbers(*shape, **more).astype(np.float16)
    x, image = half(3, 8), half(2, 6, 7, 4)
    positive = half(3, 8, low=0.1, high=4.0)
    for op in "Relu Relu6 Elu Sigmoid Tanh Softplus Neg Abs Square Exp".split():
        case(op, "half", lambda x, o=op: getattr(raw, o)(**{"features" if o in ("Relu", "Relu6", "Elu", "Softplus") else "x": x}), [x])
    for op in "Rsqrt Sqrt Reciprocal Log".split():
        case(op, "half", lambda x, o=op: getattr(raw, o)(x=x), [positive])
    for op in "AddV2 Sub Mul RealDiv Maximum Minimum SquaredDifference Pow".split():
        case(op, "half", lambda x, y, o=op: getattr(raw, o)(x=x, y=y), [positive, half(8, low=0.5, high=2.0)])
    for op in "Less GreaterEqual Equal".split():
        case(op, "half", lambda x, y, o=op: getattr(raw, o)(x=x, y=y), [x, half(8)])
    case("Softmax", "half", lambda x: tf.nn.softmax(x), [x])
    case("LogSoftmax", "half", lambda x: tf.nn.log_softmax(x), [x])
    case("LeakyRelu", "half", lambda x: tf.nn.leaky_relu(x, 0.1), [x])
    case("BiasAdd", "half", lambda x: tf.nn.bias_add(x, half(4)), [image])
    case("MatMul", "half", lambda x: tf.matmul(x, half(8, 5)), [x], [[None, 8]])
    case("BatchMatMulV2", "half", lambda x, y: tf.matmul(x, y), [half(2, 3, 4), half(2, 4, 5)])
    case("Einsum", "half", lambda x, y: tf.einsum("abc,cd->abd", x, y), [half(2, 3, 4), half(4, 5)])
    case("Conv2D", "half", lambda x: tf.nn.conv2d(x, half(3, 3, 4, 5, low=-0.5, high=0.5), 2, "SAME"), [image], [[None, 6, 7, 4]])
    case("DepthwiseConv2dNative", "half", lambda x: tf.nn.depthwise_conv2d(x, half(3, 3, 4, 1, low=-0.5, high=0.5), [1, 1, 1, 1], "SAME"), [image], [[None, 6, 7, 4]])
    case("AvgPool", "half", lambda x: tf.nn.avg_pool2d(x, 2, 2, "VALID"), [image])
    case("MaxPool", "half", lambda x: tf.nn.max_pool2d(x, 3, 2, "SAME"), [image])
    case("Mean", "half", lambda x: tf.reduce_mean(x, [1, 2]), [image])
    case("Sum", "half", lambda x: tf.reduce_sum(x, -1), [x])
    case("Max", "half", lambda x: tf.reduce_max(x, -1), [x])
    case("Pad", "half", lambda x: tf.pad(x, [[0, 0], [1, 1], [0, 2], [0, 0]]), [image])
    case("ConcatV2", "half", lambda x, y: tf.concat([x, y], 1), [x, half(3, 2)])
    case("Reshape", "half", lambda x: tf.reshape(x, [-1, 4]), [x])
    case("Transpose", "half", lambda x: tf.transpose(x, [0, 3, 1, 2]), [image])
    case("GatherV2", "half", lambda i: tf.gather(tf.constant(half(9, 4)), i), [np.array([0, 8, 3], np.int32)])
    case("FusedBatchNormV3", "half", lambda x: raw.FusedBatchNormV3(x=x, scale=[1.0, 0.5, 2.0, 1.5], offset=[0.1, 0.0, -0.2, 0.3], mean=[0.1, 0.2, 0.3, 0.0], variance=[1.0, 2.0, 0.5, 1.5], is_training=False).y, [image])
    case("ResizeBilinear", "half", lambda x: tf.image.resize(x, (10, 3)), [image])
    case("SelectV2", "half", lambda x, y: tf.where(x > y, x, y), [x, half(8)])
    case("Network", "half", lambda x: tf.nn.relu6(tf.nn.bias_add(tf.nn.conv2d(tf.cast(x, tf.float16), half(3, 3, 3, 8, low=-0.5, high=0.5), 1, "SAME"), half(8))), [numbers(2, 5, 5, 3)], [[None, 5, 5, 3]])


GROUPS = (layers,)
