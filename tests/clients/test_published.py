"""Models that their makers publish for TensorFlow.js, as SavedModels, translated and held to TensorFlow.

They come from npm, by name and version, with the photos that their package has; nothing of it is kept here.
"""

import hashlib
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import unittest

import numpy as np
import onnx
import onnxruntime
import tensorflow as tf

from models import exact_answers
from server import BIN

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "crates/onnx/tests"))
import tfjs

PACKAGE = "@vladmandic/human@3.3.6"
SHA256 = "425e9c51dbbca0c8934362b170cb0d54c2529c11c654b3c03092b16e9d6ad3f7"
KEPT = ROOT / "target/packages"
# Other sums of the same numbers, over the length of a network.
TOLERANCE = 1e-4


def package():
    """The unpacked package. npm keeps what it has fetched; this keeps what is unpacked."""
    place = KEPT / PACKAGE.replace("/", "+")
    if not place.exists():
        if not shutil.which("npm"):
            raise unittest.SkipTest(f"npm is not there, which brings {PACKAGE}")
        KEPT.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=KEPT) as folder:
            packed = subprocess.run(["npm", "pack", PACKAGE, "--pack-destination", folder, "--silent"],
                                    capture_output=True, text=True, timeout=300)
            if packed.returncode:
                raise unittest.SkipTest(f"npm does not bring {PACKAGE}: {packed.stderr.strip()[-200:]}")
            packed_file = next(pathlib.Path(folder).glob("*.tgz"))
            found = hashlib.sha256(packed_file.read_bytes()).hexdigest()
            if found != SHA256:
                raise AssertionError(f"{PACKAGE} has the sum {found}, not {SHA256}")
            with tarfile.open(packed_file) as archive:
                archive.extractall(folder, filter="data")
            (pathlib.Path(folder) / "package").rename(place)
    return place


def scores(want, got):
    """Rows of detections as they are most alike: those that tie come in any order."""
    used = np.zeros(len(got), bool)
    pairs = []
    for row in want:
        off = np.abs(got - row).max(1) + used * 1e9
        used[off.argmin()] = True
        pairs.append(got[off.argmin()])
    return np.stack(pairs)


class Published(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.package = package()
        jpeg = (cls.package / "assets/samples.jpg").read_bytes()
        cls.photo = tf.io.decode_jpeg(jpeg, channels=3).numpy()

    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.folder = pathlib.Path(holder.name)

    def image(self, size, at=(0, 0), side=480):
        """A square of the photo, numbers from 0 to 255."""
        square = self.photo[at[0]:at[0] + side, at[1]:at[1] + side]
        return tf.image.resize(square[None], (size, size)).numpy()

    def both(self, name, *images):
        """What TensorFlow and the translation say of the same images."""
        saved = self.folder / "saved"
        tfjs.convert(self.package / f"models/{name}.json", saved)
        out = self.folder / "model.onnx"
        subprocess.run([str(BIN / "vesta"), "convert", str(saved), str(out)], check=True, capture_output=True,
                       timeout=120, env={"PATH": "/usr/bin:/bin", "VESTA_HOME": "/nonexistent"})
        onnx.checker.check_model(str(out), full_check=True)
        session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
        (source,) = session.get_inputs()
        names = [value.name for value in session.get_outputs()]
        dtype = np.int32 if source.type == "tensor(int32)" else np.float32
        runs = [{source.name: image.astype(dtype)} for image in images]
        for run, want in zip(runs, exact_answers(saved, runs)):
            yield want, dict(zip(names, session.run(names, run)))

    def hold(self, want, got):
        self.assertEqual(sorted(want), sorted(got))
        for alias, array in want.items():
            self.assertEqual((got[alias].dtype, got[alias].shape), (array.dtype, array.shape), alias)
            most = float(np.abs(array).max())
            self.assertGreater(most, 0, alias)
            # A probability of nearly nothing tells of no more digits than one of nearly all.
            np.testing.assert_allclose(got[alias], array, rtol=0, atol=max(most * TOLERANCE, 1e-6), err_msg=alias)

    def test_centernet_finds_the_same_things(self):
        photo = self.image(512, side=1000)
        for want, got in self.both("centernet", photo, photo[:, :, ::-1]):
            rows, others = want.pop("tower_0_detections")[0], got.pop("tower_0_detections")[0]
            found = rows[rows[:, 4] > 0.3]
            self.assertIn(0, found[:, 5], "there are people in the photo")
            np.testing.assert_allclose(scores(found, others), found, rtol=1e-3, atol=1e-3)
            self.hold(want, got)

    def test_movenet_finds_the_same_pose(self):
        for want, got in self.both("movenet-lightning", self.image(192), self.image(192, (400, 400))):
            self.hold(want, got)

    def test_faces_have_the_same_embedding_age_and_gender(self):
        faces = [self.image(224, at, 300) / 255 for at in ((0, 0), (300, 600))]
        answers = list(self.both("faceres", *faces))
        for want, got in answers:
            self.hold(want, got)
        first, second = (want["global_pooling_Mean"] for want, _ in answers)
        self.assertGreater(float(np.abs(first - second).max()), 1e-3)

    def test_small_nets_of_faces_and_hands(self):
        for name, size in (("emotion", 64), ("blazeface", 256), ("iris", 64), ("antispoof", 128),
                           ("liveness", 32), ("handlandmark-lite", 224), ("facemesh", 192)):
            with self.subTest(name):
                image = self.image(size, (100, 100), 300) / 255
                if name == "emotion":
                    image = image.mean(-1, keepdims=True)
                shutil.rmtree(self.folder / "saved", ignore_errors=True)
                for want, got in self.both(name, image):
                    self.hold(want, got)


if __name__ == "__main__":
    unittest.main()
