"""A detector as the TensorFlow Object Detection API exports it, on ONNX Runtime and held to TensorFlow.

The API comes from the package index, by name, version and sum; the export is made here, with random weights
(`object_detection/export.py`).
"""

import pathlib
import subprocess
import sys
import tarfile
import tempfile
import unittest
import zipfile

import numpy as np
import tensorflow as tf

from models import Client, Folders, exact_answers
from server import Server, missing, need_onnxruntime

HERE = pathlib.Path(__file__).parent
KEPT = HERE.parents[1] / "target/packages"
PACKAGES = {
    "tf-models-research-object-detection==2.8.0.post1": "c701ea455646553a64c5f161641e8d5a94054b162b81961dcfff3dd619870004",
    "tf-models-official==2.16.0": "9d0d8965e25f133948d53af17635123b02e77d9cd3684238afc350fc7afb8b4d",
}
# Raw boxes and scores, of the largest. Weights that nobody trained carry the rounding of sums far: one score of
# 38,736 was seen 1.2e-4 apart.
TOLERANCE = 1e-3


def api():
    """The unpacked packages, without those that they would install besides."""
    place = KEPT / "object_detection_api"
    if place.exists():
        return place
    KEPT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=KEPT) as holder:
        folder = pathlib.Path(holder)
        wanted = folder / "requirements.txt"
        wanted.write_text("".join(f"{name} --hash=sha256:{own}\n" for name, own in PACKAGES.items()))
        got = subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
             "--require-hashes", "--dest", folder, "--requirement", wanted],
            capture_output=True, text=True, timeout=300)
        if got.returncode:
            missing(f"pip does not bring {', '.join(PACKAGES)}: {got.stderr.strip()[-300:]}")
        unpacked = folder / "unpacked"
        with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
            archive.extractall(folder, filter="data")
        next(folder.glob("tf_models_research*/")).rename(unpacked)
        with zipfile.ZipFile(next(folder.glob("*.whl"))) as archive:
            archive.extractall(unpacked)
        unpacked.rename(place)
    return place


def image(height, width, seed):
    """Blurred colours with noise, as bytes."""
    random = np.random.default_rng(seed)
    colours = tf.image.resize(random.integers(0, 255, (1, 7, 9, 3)), (height, width)).numpy()
    return np.clip(colours + random.normal(0, 12, colours.shape), 0, 255).astype(np.uint8)


def rows(answer):
    """Detections: class, box, score."""
    count = int(answer["num_detections"][0])
    parts = answer["detection_classes"][0, :, None], answer["detection_boxes"][0], answer["detection_scores"][0, :, None]
    return np.concatenate(parts, 1)[:count]


class ObjectDetectionApi(Folders):
    @classmethod
    def setUpClass(cls):
        need_onnxruntime()
        cls.api = api()

    def export(self, name):
        folder = self.base / name / "1"
        folder.parent.mkdir()
        made = subprocess.run(
            [sys.executable, HERE / "object_detection/export.py", self.api, HERE / f"object_detection/{name}.config", folder],
            capture_output=True, text=True, timeout=900)
        self.assertEqual(made.returncode, 0, made.stderr[-2000:])
        return folder

    def hold(self, name, within=TOLERANCE, others=0.0):
        """Of the raw boxes, the part `others` may be others: of two stages, the first chooses among boxes of which some
        are as good to within the rounding; TensorFlow itself chooses otherwise with oneDNN's kernels."""
        folder = self.export(name)
        pictures = [image(*size, seed) for seed, size in enumerate([(150, 200), (64, 64), (333, 250)])]
        answers = exact_answers(folder, [{"input_tensor": picture} for picture in pictures])
        with Server(f"--model_name={name}", f"--model_base_path={folder.parent}", "--engine=onnxruntime", seconds=240) as server:
            client = Client(server)
            for picture, want in zip(pictures, answers):
                got = client.predict(name, input_tensor=picture, timeout=120)
                self.assertEqual({key: (own.dtype, own.shape) for key, own in got.items()},
                                 {key: (own.dtype, own.shape) for key, own in want.items()})
                off = np.zeros(want["raw_detection_boxes"].shape[1])
                for key in ("raw_detection_boxes", "raw_detection_scores"):
                    most = float(np.abs(want[key]).max())
                    self.assertTrue(np.isfinite(most), key)
                    off = np.maximum(off, np.abs(got[key] - want[key])[0].max(-1) / most)
                apart = off > within
                self.assertLessEqual(apart.mean(), others, off[apart])
                self.same_sets(rows(want), rows(got))

    def same_sets(self, want, got):
        """Detections have one like them, but for those whose rivals are as good to within the rounding."""
        self.assertEqual(len(want), len(got))
        self.assertGreater(len(np.unique(want[:, 0])), 1, "detections of several classes")
        free = np.ones(len(got), bool)
        alone = []
        for row in want:
            off = np.abs(got - row).max(1) + ~free * 1e9
            if off.min() > 1e-2:
                alone.append(row)
            else:
                free[off.argmin()] = False
        self.assertLessEqual(len(alone), len(want) // 10, f"nothing like these was detected: {alone}")

    def test_ssd_mobilenet_v2_fpn(self):
        self.hold("ssd_mobilenet_v2_fpn")

    def test_efficientdet_d0(self):
        # TensorFlow itself is 7e-4 apart with oneDNN's kernels.
        self.hold("efficientdet_d0", within=5e-3)

    def test_faster_rcnn_resnet50(self):
        self.hold("faster_rcnn_resnet50", others=0.1)


if __name__ == "__main__":
    unittest.main()
