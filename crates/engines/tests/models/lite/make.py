"""Writes the TensorFlow Lite models beside this file. They are kept, since making them takes
TensorFlow and a minute; run this with its Python after a change.

    python make.py
"""

import tempfile
from pathlib import Path

import numpy as np
import tensorflow as tf

HERE = Path(__file__).parent
FLOATS = tf.TensorSpec([None], tf.float32)


def convert(name, signatures, module=None, tweak=None):
    module = module or tf.Module()
    for key, function in signatures.items():
        setattr(module, key, function)
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures=signatures)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=list(signatures))
        if tweak:
            tweak(converter)
        (HERE / f"{name}.tflite").write_bytes(converter.convert())


@tf.function(input_signature=[FLOATS])
def half_plus_two(x):
    return {"y": x / 2 + 2}


@tf.function(input_signature=[FLOATS])
def slow_half_plus_two(x):
    # Sizes that are known only at run time, or the converter would compute all of it.
    size = tf.reduce_sum(tf.shape(x) * 0) + 320
    square = tf.fill([size, size], tf.constant(0.003))

    def body(i, z):
        return i + 1, tf.tanh(tf.matmul(z, square))

    _, z = tf.while_loop(lambda i, _: i < 200, body, (tf.constant(0), square))
    return {"y": x / 2 + 2 + tf.reduce_sum(z) * 0.0}


@tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
def string_identity(text):
    return {"same": tf.identity(text)}


@tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name=n) for n in "ab"])
def sum_and_difference(a, b):
    return {"sum": a + b, "difference": a - b}


class Counter(tf.Module):
    def __init__(self):
        self.count = tf.Variable(0, dtype=tf.int64)

    @tf.function(input_signature=[])
    def serve(self):
        return {"count": self.count.assign_add(1)}


# Outputs whose sizes are known only when they are computed.


@tf.function(input_signature=[FLOATS])
def positive(x):
    return {"y": tf.boolean_mask(x, x > 0)}


@tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, name="x")])
def twice_as_many(x):
    return {"y": tf.reshape(tf.concat([x, x], 1), [tf.shape(x)[0] * 2, 3])}


@tf.function(input_signature=[tf.TensorSpec([None, 64], tf.float32, name="x")])
def late_sizes(x):
    # What comes after the sizes are known is XNNPACK's.
    rows = tf.reshape(x, [tf.shape(x)[0], 2, 32])
    return {"most": tf.nn.max_pool1d(rows, 2, 1, "SAME")}


@tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
def repeated(text):
    return {"many": tf.gather(text, tf.zeros([2000], tf.int32))}


# Ends that are one tensor, and constants.


@tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
def the_same(x):
    y = x * 2
    return {"a": y, "b": y, "given": x, "seven": tf.constant([7.0])}


@tf.function(input_signature=[tf.TensorSpec([2], tf.float32, name="x")])
def halve(x):
    return {"y": x / 2}


@tf.function(input_signature=[tf.TensorSpec([2], tf.float32, name=n) for n in "xz"])
def add(x, z):
    return {"sum": x + z}


@tf.function(input_signature=[tf.TensorSpec([None, 4], tf.int32, name="x")])
def dtypes(x):
    kinds = [tf.int64, tf.int16, tf.int8, tf.uint8, tf.bool, tf.float32]
    return {kind.name: tf.cast(x, kind) for kind in kinds}


@tf.function(input_signature=[tf.TensorSpec([], tf.float32, name="x")])
def scalar(x):
    return {"y": x + 1}


@tf.function(input_signature=[FLOATS])
def random(x):
    return {"y": x + tf.random.uniform(tf.shape(x))}


# Graphs that begin with the parsing of Examples, and one that is nothing else.
FEATURES = {
    "x": tf.io.FixedLenFeature([2], tf.float32, [7.0, 8.0]),
    "n": tf.io.FixedLenFeature([1], tf.int64),
    "name": tf.io.FixedLenFeature([1], tf.string, "missing"),
}


@tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
def examples(examples):
    given = tf.io.parse_example(examples, FEATURES)
    return {
        "sum": tf.reduce_sum(given["x"], 1) + tf.cast(given["n"][:, 0], tf.float32),
        "name": given["name"],
    }


@tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
def examples_alone(examples):
    return dict(tf.io.parse_example(examples, FEATURES))


WEIGHTS = np.random.RandomState(0).randn(8, 4).astype("f")


@tf.function(input_signature=[tf.TensorSpec([1, 8], tf.float32, name="x")])
def dense(x):
    return {"y": tf.nn.relu(x @ WEIGHTS)}


def quantized(kind):
    def tweak(converter):
        samples = [np.random.RandomState(i).rand(1, 8).astype("f") for i in range(50)]
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([sample] for sample in samples)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = kind

    return tweak


def with_tensorflow(converter):
    converter.target_spec.supported_ops = [tf.lite.OpsSet.SELECT_TF_OPS]


def with_custom_operators(converter):
    converter.allow_custom_ops = True


def with_variables(converter):
    converter.experimental_enable_resource_variables = True


if __name__ == "__main__":
    single = [
        half_plus_two, slow_half_plus_two, string_identity, sum_and_difference, positive,
        twice_as_many, late_sizes, repeated, the_same, dtypes, scalar, random,
    ]
    for function in single:
        convert(function.python_function.__name__, {"serving_default": function})
    for function in [examples, examples_alone]:
        name = function.python_function.__name__
        convert(name, {"serving_default": function}, tweak=with_custom_operators)
    counter = Counter()
    convert("counter", {"serving_default": counter.serve}, counter, with_variables)
    convert("two_signatures", {"halve": halve, "add": add})
    convert("int8", {"serving_default": dense}, tweak=quantized(tf.int8))
    convert("uint8", {"serving_default": dense}, tweak=quantized(tf.uint8))
    convert("of_tensorflow", {"serving_default": half_plus_two}, tweak=with_tensorflow)
