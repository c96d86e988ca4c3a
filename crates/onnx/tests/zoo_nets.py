"""The networks of the zoo: what each is built by, what it is fed.

Owns: the list and the sizes. Knows nothing of files. `nets(full)` gives all of them.
"""

import dataclasses
import importlib
import sys
import typing

import keras
import numpy as np
import tensorflow as tf
import tf_keras
import tf_slim as slim
from tf_slim.nets import alexnet, inception, overfeat, resnet_v1, resnet_v2, vgg

CLASSES = 10

# TensorFlow looks for TF1's batch normalisation where earlier releases of Keras 2 had it.
sys.modules["tf_keras.legacy_tf_layers.normalization"] = importlib.import_module(
    "tf_keras.src.legacy_tf_layers.normalization")


@dataclasses.dataclass
class Net:
    """One network. `inputs(rng, rows)` gives arrays by alias, `more(rng)` further sets of them;
    `refused` are the operators that a refusal names, when the embedded engine has to refuse."""

    name: str
    kind: str
    build: typing.Callable
    inputs: typing.Callable
    signature: str = "serving_default"
    more: typing.Callable = lambda rng: []
    refused: tuple = ()
    # Saved with all that Keras 2 wrote for going on with training, as `model.save` did.
    whole: bool = False
    # Saved with the one function alone, where all that Keras saves takes long.
    lean: bool = False


def pictures(rng, rows, side, channels=3, low=-1.0, high=1.0):
    """Smooth pictures with some noise, each quite another."""
    coarse = rng.uniform(low, high, (rows, 4, 4, channels))
    smooth = tf.image.resize(coarse, [side, side], method="bicubic").numpy()
    return np.clip(smooth + rng.normal(0, (high - low) / 20, smooth.shape), low, high).astype(np.float32)


def image_net(name, kind, build, side, alias, low=-1.0, high=1.0, channels=3, **more):
    return Net(name, kind, build, lambda rng, rows: {alias: pictures(rng, rows, side, channels, low, high)}, **more)


# Name, small side, the side of its users, arguments that make it small, marks: `b` for pixels of 0
# to 255, `full` for `--full` alone, and how it is saved.
APPLICATIONS = [
    ("MobileNet", 32, 224, dict(alpha=0.25), ""),
    ("MobileNetV2", 32, 224, dict(alpha=0.35), "lean"),
    ("MobileNetV3Small", 32, 224, dict(alpha=0.75), "b"),
    ("MobileNetV3Large", 32, 224, dict(alpha=0.75), "b lean"),
    ("ResNet50", 32, 224, {}, ""),
    ("ResNet101", 32, 224, {}, "full"),
    ("ResNet152", 32, 224, {}, "full"),
    ("ResNet50V2", 32, 224, {}, "lean"),
    ("ResNet101V2", 32, 224, {}, "full"),
    ("ResNet152V2", 32, 224, {}, "full"),
    ("VGG16", 32, 224, {}, ""),
    ("VGG19", 32, 224, {}, "full"),
    ("InceptionV3", 75, 299, {}, "lean"),
    ("InceptionResNetV2", 75, 299, {}, "lean"),
    ("Xception", 71, 299, {}, "lean"),
    ("DenseNet121", 32, 224, {}, "lean"),
    ("DenseNet169", 32, 224, {}, "full"),
    ("DenseNet201", 32, 224, {}, "full"),
    ("EfficientNetB0", 32, 224, {}, "b lean"),
    ("EfficientNetB4", 64, 380, {}, "b full"),
    ("EfficientNetV2B0", 64, 224, {}, "b lean"),
    ("EfficientNetV2S", 64, 384, {}, "b full"),
    ("NASNetMobile", 32, 224, {}, "lean"),
    ("ConvNeXtTiny", 32, 224, {}, "b lean"),
]

# Families that only Keras 2 has, and some that it writes otherwise than Keras 3.
APPLICATIONS_2 = [
    ("RegNetX002", 32, 224, {}, "b"),
    ("RegNetY002", 32, 224, {}, "b"),
    ("ResNetRS50", 32, 224, {}, "b"),
    ("MobileNetV2", 32, 224, dict(alpha=0.35), "whole"),
    ("MobileNetV3Small", 32, 224, dict(alpha=0.75), "b"),
    ("EfficientNetB0", 32, 224, {}, "b full"),
    ("ConvNeXtTiny", 32, 224, {}, "b full"),
]


def applications(library, rows, prefix, full):
    found = []
    for name, small, side, arguments, marks in rows:
        if "full" in marks and not full:
            continue
        shape = side if full else small

        def build(name=name, arguments=arguments, shape=shape):
            return getattr(library.applications, name)(
                weights=None, classes=CLASSES, classifier_activation=None,
                input_shape=(shape, shape, 3), **({} if full else arguments))

        low, high = (0.0, 255.0) if marks.startswith("b") else (-1.0, 1.0)
        # Keras names the input itself; the one alias is found when the model is there.
        found.append(image_net(prefix + name, "keras", build, shape, None, low, high, whole="whole" in marks, lean="lean" in marks and not full))
    return found


def slim_mobilenet(images, is_training):
    """MobileNet as TF-Slim's model garden has it, which the package leaves out."""
    settings = dict(activation_fn=tf.nn.relu6, normalizer_fn=slim.batch_norm,
                    normalizer_params=dict(is_training=is_training, decay=0.0, scale=True))
    with slim.arg_scope([slim.conv2d, slim.separable_conv2d], **settings):
        net = slim.conv2d(images, 8, 3, stride=2)
        for depth, stride in ((16, 1), (32, 2), (32, 1), (64, 2), (64, 1)):
            net = slim.separable_conv2d(net, None, 3, depth_multiplier=1, stride=stride)
            net = slim.conv2d(net, depth, 1)
        net = slim.avg_pool2d(net, net.shape[1:3], padding="VALID")
        net = slim.conv2d(net, CLASSES, 1, activation_fn=None, normalizer_fn=None)
        return tf.squeeze(net, [1, 2])


def slim_nets(full):
    def of(function, scope, **arguments):
        def build(images, is_training):
            with slim.arg_scope(scope()):
                with slim.arg_scope([slim.batch_norm], decay=0.0, scale=True):
                    logits, _ = function(images, num_classes=CLASSES, is_training=is_training, **arguments)
            return tf.squeeze(logits, [1, 2]) if logits.shape.rank == 4 else logits

        return build

    def residual(function):
        return of(function, resnet_v1.resnet_arg_scope)

    v1, v2, v3 = (getattr(inception, f"inception_v{n}_arg_scope") for n in (1, 2, 3))
    rows = [
        ("alexnet_v2", of(alexnet.alexnet_v2, alexnet.alexnet_v2_arg_scope), 224, 224),
        ("inception_v1", of(inception.inception_v1, v1), 193, 224),
        ("inception_v2", of(inception.inception_v2, v2), 64, 224),
        ("inception_v3", of(inception.inception_v3, v3, create_aux_logits=False), 107, 299),
        ("overfeat", of(overfeat.overfeat, overfeat.overfeat_arg_scope), 231, 231),
        ("resnet_v1_50", residual(resnet_v1.resnet_v1_50), 33, 224),
        ("resnet_v2_50", residual(resnet_v2.resnet_v2_50), 33, 224),
        ("resnet_v1_50_stride_8", of(resnet_v1.resnet_v1_50, resnet_v1.resnet_arg_scope, output_stride=8), 33, 225),
        ("vgg_a", of(vgg.vgg_a, vgg.vgg_arg_scope), 224, 224),
        ("mobilenet_v1", slim_mobilenet, 32, 224),
    ]
    if full:
        rows += [
            ("resnet_v1_101", residual(resnet_v1.resnet_v1_101), 33, 224),
            ("resnet_v1_152", residual(resnet_v1.resnet_v1_152), 33, 224),
            ("resnet_v2_101", residual(resnet_v2.resnet_v2_101), 33, 224),
            ("vgg_16", of(vgg.vgg_16, vgg.vgg_arg_scope), 224, 224),
            ("vgg_19", of(vgg.vgg_19, vgg.vgg_arg_scope), 224, 224),
        ]
    else:
        # Layers of hundreds of megabytes, whose operators the others have.
        rows = [row for row in rows if row[0] not in ("alexnet_v2", "overfeat", "vgg_a", "resnet_v1_50")]
    return [image_net("slim_" + name, "slim", build, side if full else small, "images") for name, build, small, side in rows]


def tiny_resnet():
    layers = keras.layers
    inputs = x = layers.Input((32, 32, 3))
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(16, 3, padding="same")(x)))
    for filters, stride in ((16, 1), (32, 2), (64, 2)):
        y = layers.Conv2D(filters, 3, stride, padding="same")(x)
        y = layers.ReLU()(layers.BatchNormalization()(y))
        y = layers.BatchNormalization()(layers.Conv2D(filters, 3, padding="same")(y))
        x = x if stride == 1 else layers.Conv2D(filters, 1, stride, padding="same")(x)
        x = layers.ReLU()(layers.add([x, y]))
    x = layers.Flatten()(layers.AveragePooling2D(8)(x))
    return keras.Model(inputs, layers.Dense(10)(x))


def tiny_ds_cnn():
    layers = keras.layers
    inputs = layers.Input((49, 10, 1))
    x = layers.Conv2D(64, (10, 4), (2, 2), padding="same")(inputs)
    x = layers.Dropout(0.2)(layers.ReLU()(layers.BatchNormalization()(x)))
    for _ in range(4):
        x = layers.ReLU()(layers.BatchNormalization()(layers.DepthwiseConv2D(3, padding="same")(x)))
        x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(64, 1, padding="same")(x)))
    x = layers.Flatten()(layers.AveragePooling2D((25, 5))(layers.Dropout(0.4)(x)))
    return keras.Model(inputs, layers.Dense(12)(x))


def tiny_wake_words():
    layers = keras.layers
    inputs = x = layers.Input((96, 96, 3))
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(8, 3, 2, padding="same")(x)))
    for depth, stride in [(16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), *[(128, 1)] * 5, (256, 2), (256, 1)]:
        x = layers.DepthwiseConv2D(3, stride, padding="same")(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(depth, 1, padding="same")(x)))
    x = layers.Flatten()(layers.AveragePooling2D(3)(x))
    return keras.Model(inputs, layers.Dense(2)(x))


def tiny_autoencoder():
    layers = keras.layers
    inputs = x = layers.Input((640,))
    for width in (128, 128, 128, 128, 8, 128, 128, 128, 128):
        x = layers.ReLU()(layers.BatchNormalization()(layers.Dense(width)(x)))
    return keras.Model(inputs, layers.Dense(640)(x))


def tiny_nets():
    def spectra(rng, rows):
        return {None: rng.normal(0, 1, (rows, 49, 10, 1)).astype(np.float32)}

    def windows(rng, rows):
        return {None: rng.normal(0, 1, (rows, 640)).astype(np.float32)}

    return [
        image_net("tiny_resnet8", "keras", tiny_resnet, 32, None),
        Net("tiny_ds_cnn", "keras", tiny_ds_cnn, spectra),
        image_net("tiny_wake_words", "keras", tiny_wake_words, 96, None),
        Net("tiny_autoencoder", "keras", tiny_autoencoder, windows),
    ]


WORDS, PLACES, WIDTH, HEADS = 500, 64, 32, 4


def encoder(library, dtype, length, approximate, blocks=2):
    """A BERT-like encoder as one writes it with Keras's own layers."""
    layers, ops = library.layers, (keras.ops if library is keras else tf)

    class Places(layers.Layer):
        def build(self, shape):
            self.table = self.add_weight(name="table", shape=(PLACES, WIDTH), initializer="random_normal")
            super().build(shape)

        def call(self, x):
            return x + self.table[: ops.shape(x)[1]]

    class Gelu(layers.Layer):
        def call(self, x):
            return library.activations.gelu(x, approximate=approximate)

    class Seen(layers.Layer):
        def call(self, mask):
            return ops.cast(mask, "bool")[:, None, :]

    ids = layers.Input((length,), dtype=dtype, name="ids")
    kinds = layers.Input((length,), dtype=dtype, name="kinds")
    mask = layers.Input((length,), dtype=dtype, name="mask")
    x = layers.Embedding(WORDS, WIDTH)(ids) + layers.Embedding(2, WIDTH)(kinds)
    x = layers.LayerNormalization(epsilon=1e-12)(Places()(x))
    seen = Seen()(mask)
    for _ in range(blocks):
        y = layers.MultiHeadAttention(HEADS, WIDTH // HEADS)(x, x, attention_mask=seen)
        x = layers.LayerNormalization(epsilon=1e-12)(layers.add([x, y]))
        y = Gelu()(layers.Dense(4 * WIDTH)(x))
        x = layers.LayerNormalization(epsilon=1e-12)(layers.add([x, layers.Dense(WIDTH)(y)]))
    pooled = layers.Dense(WIDTH, activation="tanh")(x[:, 0])
    return library.Model([ids, kinds, mask], layers.Dense(5)(pooled))


def sentences(dtype, length):
    def inputs(rng, rows, length=length):
        lengths = rng.integers(min(2, length), length + 1, rows)
        lengths[0] = length
        mask = (np.arange(length)[None] < lengths[:, None]).astype(dtype)
        ids = (rng.integers(1, WORDS, (rows, length)) * mask).astype(dtype)
        kinds = (np.arange(length)[None] >= length // 2).astype(dtype) * mask
        return {"ids": ids, "kinds": kinds, "mask": mask}

    return inputs


class ModuleEncoder(tf.Module):
    """An encoder out of plain operators, as exports of other frameworks and of BERT's first code are:
    batched products, a one-hot of token kinds, a mask added to the scores, tanh GELU."""

    def __init__(self, rng):
        super().__init__()
        made = lambda *shape: tf.Variable(rng.normal(0, shape[0] ** -0.5, shape).astype(np.float32))
        self.words = tf.Variable(rng.normal(0, 1, (WORDS, WIDTH)).astype(np.float32))
        self.kinds, self.places = made(2, WIDTH), made(PLACES, WIDTH)
        self.parts = [made(WIDTH, WIDTH) for _ in range(4)]
        self.wide, self.narrow, self.last = made(WIDTH, 4 * WIDTH), made(4 * WIDTH, WIDTH), made(WIDTH, 5)
        self.gain = tf.Variable(rng.uniform(0.7, 1.3, WIDTH).astype(np.float32))
        self.bias = tf.Variable(rng.normal(0, 0.2, WIDTH).astype(np.float32))

    def normed(self, x):
        mean, variance = tf.nn.moments(x, [-1], keepdims=True)
        return tf.nn.batch_normalization(x, mean, variance, self.bias, self.gain, 1e-12)

    def heads(self, x, weights):
        shape = tf.shape(x)
        x = tf.reshape(tf.matmul(tf.reshape(x, [-1, WIDTH]), weights), [shape[0], shape[1], HEADS, WIDTH // HEADS])
        return tf.transpose(x, [0, 2, 1, 3])

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32, name) for name in ("ids", "kinds", "mask")])
    def serve(self, ids, kinds, mask):
        rows, length = tf.shape(ids)[0], tf.shape(ids)[1]
        kind = tf.matmul(tf.one_hot(tf.reshape(kinds, [-1]), 2), self.kinds)
        x = tf.gather(self.words, ids) + tf.reshape(kind, [rows, length, WIDTH])
        x = self.normed(x + tf.slice(self.places, [0, 0], [length, -1])[None])
        q, k, v = (self.heads(x, part) for part in self.parts[:3])
        scores = tf.matmul(q, k, transpose_b=True) / np.float32(np.sqrt(WIDTH // HEADS))
        scores += (1.0 - tf.cast(mask[:, None, None, :], tf.float32)) * -10000.0
        y = tf.transpose(tf.matmul(tf.nn.softmax(scores), v), [0, 2, 1, 3])
        y = tf.reshape(y, [rows, length, WIDTH])
        x = self.normed(x + tf.tensordot(y, self.parts[3], 1))
        y = tf.tensordot(x, self.wide, 1)
        y *= 0.5 * (1.0 + tf.tanh(np.float32(np.sqrt(2 / np.pi)) * (y + 0.044715 * tf.pow(y, 3))))
        x = self.normed(x + tf.tensordot(y, self.narrow, 1))
        return {"sequence": x, "pooled": tf.matmul(tf.tanh(x[:, 0]), self.last)}


def encoders():
    found = []
    for name, library, dtype, length, approximate in (
        ("encoder_exact_gelu", keras, "int32", 16, False),
        ("encoder_tanh_gelu", keras, "int64", 16, True),
        ("encoder_open_length", keras, "int32", None, False),
        ("keras2_encoder_exact_gelu", tf_keras, "int64", 16, False),
        ("keras2_encoder_open_length", tf_keras, "int32", None, True),
    ):
        feed = sentences(dtype, length or 12)
        build = lambda a=library, b=dtype, c=length, d=approximate: encoder(a, b, c, d)
        more = (lambda rng, f=feed: [f(rng, 2, 7), f(rng, 1, 1)]) if length is None else lambda rng: []
        found.append(Net(name, "keras", build, feed, more=more))
    feed = sentences("int32", 12)
    found.append(Net("module_encoder", "module", ModuleEncoder, feed, more=lambda rng: [feed(rng, 2, 5)]))
    return found


class Plain(tf.Module):
    """A module of one function."""

    def __init__(self, function, **shapes):
        super().__init__()
        specs = [tf.TensorSpec(shape, dtype, name) for name, (shape, dtype) in shapes.items()]
        self.serve = tf.function(function, input_signature=specs)


def refused():
    """What the embedded engine does not run, and says so."""
    none = lambda rng, rows: {}

    def module(name, function, refused, **shapes):
        return Net(name, "module", lambda rng: Plain(function, **shapes), none, refused=refused)

    boxes = dict(boxes=((8, 4), tf.float32), scores=((8,), tf.float32))
    advice = "install TensorFlow with `vesta engine install tensorflow`".split()
    rows = lambda x: {"y": tf.while_loop(lambda i, y: i < tf.cast(y[0, 0], tf.int32), lambda i, y: (i + 1, y + 1), (0, x))[1]}
    return [
        Net("refused_tf1_condition", "graph", lambda x: tf.compat.v1.cond(tf.reduce_sum(x) > 0, lambda: x + 1, lambda: x - 1), none, refused=("StatelessIf", "cond/Merge", *advice)),
        Net("refused_tf1_loop", "graph", lambda x: tf.compat.v1.while_loop(lambda y: tf.reduce_sum(y) < 9, lambda y: y + 1, [x]), none, refused=("StatelessWhile", "while/LoopCond", *advice)),
        module("refused_condition", lambda x: {"y": tf.cond(x[0, 0] > 0, lambda: x + 1, lambda: x - 1)}, ("If", *advice), x=((None, 4), tf.float32)),
        module("refused_loop", rows, ("While", *advice), x=((None, 4), tf.float32)),
        module("refused_suppression", lambda boxes, scores: {"y": tf.image.non_max_suppression(boxes, scores, 3)}, ("NonMaxSuppressionV3", *advice), **boxes),
        module("refused_double", lambda x: {"y": tf.matmul(x, tf.ones([4, 2], tf.float64))}, ("MatMul", "double", *advice), x=((None, 4), tf.float64)),
        module("refused_volume", lambda x: {"y": tf.nn.conv3d(x, tf.ones([2, 2, 2, 1, 1]), [1] * 5, "SAME")}, ("Conv3D", *advice), x=((None, 4, 4, 4, 1), tf.float32)),
        module("refused_cubic", lambda x: {"y": tf.image.resize(x, [9, 9], "bicubic")}, ("ResizeBicubic", *advice), x=((None, 4, 4, 1), tf.float32)),
    ]


def pitch():
    def sound(rng, rows):
        t = np.arange(43844) / 22050
        tones = [sum(np.sin(2 * np.pi * f * t) for f in rng.uniform(200, 1500, 3)) / 4 for _ in range(rows)]
        # A room's noise: without it the logarithm of silence makes a lot out of nothing.
        heard = np.array(tones) + rng.normal(0, 0.5, (rows, len(t)))
        return {"input_2": heard.astype(np.float32)[:, :, None]}

    return Net("basic_pitch", "ready", lambda: ("basic_pitch", "saved_models/icassp_2022/nmp"), sound)


def nets(full):
    return [
        *applications(keras, APPLICATIONS, "", full),
        *applications(tf_keras, APPLICATIONS_2, "keras2_", full),
        *slim_nets(full),
        *tiny_nets(),
        *encoders(),
        pitch(),
        *refused(),
    ]
