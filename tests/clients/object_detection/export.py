"""Exports a detector of the TensorFlow Object Detection API, as its own exporter does, with random weights.

    python export.py PACKAGES CONFIG OUT

PACKAGES holds the unpacked packages; CONFIG is a pipeline in text, of which the model counts. The weights are drawn, and the
statistics of its normalisations are those of a drawn image, so that its detections differ from each other.
The API is of TensorFlow 2.8's time: what it only draws and evaluates with is left out, and its Keras is tf_keras.
"""

import importlib
import os
import pathlib
import sys
from unittest.mock import MagicMock

os.environ.update(TF_USE_LEGACY_KERAS="1", TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="",
                  PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION="python")
PACKAGES, CONFIG, OUT = map(pathlib.Path, sys.argv[1:])
sys.path[:0] = [str(PACKAGES), str(PACKAGES / "slim")]
UNUSED = """PIL PIL.Image PIL.ImageColor PIL.ImageDraw PIL.ImageFont contextlib2 cv2 lvis lvis.eval lvis.lvis
    lvis.results lxml lxml.etree matplotlib matplotlib.pyplot pandas pycocotools pycocotools.coco
    pycocotools.cocoeval pycocotools.mask scipy scipy.io scipy.optimize tensorflow_io yaml""".split()
sys.modules.update({name: MagicMock() for name in UNUSED})

import numpy as np
import tensorflow as tf
import tf_keras
import tf_keras.applications

sys.modules["tf_keras.legacy_tf_layers.normalization"] = importlib.import_module("tf_keras.src.legacy_tf_layers.normalization")
sys.modules["keras"] = tf_keras
sys.modules["keras.applications"] = tf_keras.applications

from google.protobuf import text_format
from object_detection import exporter_lib_v2
from object_detection.builders import model_builder
from object_detection.protos import pipeline_pb2

RANDOM = np.random.default_rng(3)


def drawn(variable):
    """Numbers for a variable by what it is; `None` for those that stay."""
    name, shape = variable.name.lower(), variable.shape.as_list()
    if not variable.dtype.is_floating:
        return None
    if "gamma" in name:
        # The last of a residual block adds little, so that sums do not grow from block to block.
        return RANDOM.uniform(0.8, 1.3, shape) * (0.3 if "_3_bn" in name else 1.0)
    if "beta" in name:
        return RANDOM.normal(0, 0.2, shape)
    if name.endswith("bias:0"):
        return variable.numpy() + RANDOM.normal(0, 0.6 if "class" in name else 0.2, shape)
    if "kernel" in name and len(shape) == 2:
        return RANDOM.normal(0, 0.4 / shape[0] ** 0.5, shape)
    if "kernel" in name and len(shape) == 4:
        fan = shape[0] * shape[1] * (1 if "depthwise" in name else shape[2])
        # Sizes of boxes are powers of what their head gives; scores would all be the highest.
        calm = 0.05 if "boxhead" in name else 0.1 if "classhead" in name else 1.0
        return RANDOM.normal(0, (1.6 / fan) ** 0.5, shape) * calm
    return None


def calibrate(model, image):
    """Gives every normalisation the statistics of what comes to it."""
    layer = next(kind for kind in tf_keras.layers.BatchNormalization.__mro__ if "call" in vars(kind))
    call = layer.call

    def measuring(self, inputs, training=None, **rest):
        if self.built and inputs.shape.rank == 4:
            mean, variance = tf.nn.moments(inputs, [0, 1, 2])
            self.moving_mean.assign(mean)
            self.moving_variance.assign(variance + 0.05)
        return call(self, inputs, training=False)

    layer.call = measuring
    tf.config.run_functions_eagerly(True)
    model.predict(*model.preprocess(image))
    tf.config.run_functions_eagerly(False)
    layer.call = call


def main():
    tf.random.set_seed(3)
    config = text_format.Parse(CONFIG.read_text(), pipeline_pb2.TrainEvalPipelineConfig()).model
    model = model_builder.build(config, is_training=False)
    module = exporter_lib_v2.DETECTION_MODULE_MAP["image_tensor"](model, False, [])
    function = module.__call__.get_concrete_function()
    # In an order of their own, so that each export is the same.
    variables = sorted({id(own): own for own in function.graph.variables}.values(),
                       key=lambda own: (own.name, own.shape.as_list()))
    for variable in variables:
        numbers = drawn(variable)
        if numbers is not None:
            variable.assign(numbers)
    image = tf.image.resize(RANDOM.integers(0, 255, (1, 9, 12, 3)), (240, 320)) + RANDOM.normal(0, 12, (1, 240, 320, 3))
    calibrate(model, tf.cast(tf.clip_by_value(image, 0, 255), tf.float32))
    # What is called is saved, without the functions of every layer, which nobody calls and which take minutes.
    holder = tf.Module()
    holder.kept = variables
    tf.saved_model.save(holder, str(OUT), signatures=function)


main()
