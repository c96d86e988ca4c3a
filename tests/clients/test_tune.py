"""`vesta tune`: figures of every installed engine, as a table, JSON and a picture."""

import json
import shutil
import unittest
import xml.etree.ElementTree

import tensorflow as tf

from models import Folders, save
from server import HOME, ROOT, need_onnxruntime, need_tensorflow
from test_program import run

ONNX = ROOT / "crates" / "engines" / "tests" / "models" / "onnx" / "half_plus_two.onnx"
QUICK = ("--threads=1", "--time-ms=20")
SVG = "{http://www.w3.org/2000/svg}"


def tune(*words):
    return run("tune", *map(str, words), program="vesta", seconds=120)


def release(row):
    return [int(part) for part in row[1].split(".")]


class TuneTest(Folders):
    @classmethod
    def setUpClass(cls):
        need_tensorflow()

    def put(self, rows):
        weights = tf.random.stateless_uniform([8, 4], [1, 2])
        folder = self.base / "m" / "1"
        folder.parent.mkdir()
        save(folder, lambda x: {"y": tf.nn.softmax(x @ weights)},
             tf.TensorSpec([rows, 8], tf.float32, name="x"))
        return folder

    def test_a_table_and_a_picture(self):
        folder = self.put(None)
        picture = self.base / "out.svg"
        done = tune(folder.parent, "--batches=1,3", "--out", picture, *QUICK)
        self.assertEqual(done.returncode, 0, done.stderr)
        head, *lines = done.stdout.splitlines()
        self.assertEqual(head.split(), "engine version threads load s memory MiB ms at 1 ms at 3 max error".split())
        every = [line.split() for line in lines if line]
        # Of several releases of TensorFlow the newest.
        reference, = [row for row in every if row[-1] == "reference"]
        self.assertEqual(reference[:2], max((row[:2] for row in every if row[0] == "tensorflow"), key=release))
        rows = {row[0]: row for row in every}
        self.assertLess(float(rows["embedded"][-1]), 1e-4)
        for name in ("tensorflow", "embedded"):
            _, _, threads, load, memory, one, three, _ = rows[name]
            self.assertEqual(threads, "1")
            self.assertTrue(float(load) > 0 and int(memory) > 5 and float(one) > 0 and float(three) > 0)
        # No terminal: a line for each step.
        self.assertRegex(done.stderr, r"(?m)^1 of \d+: tensorflow [\d.]+, 1 thread$")

        drawn = xml.etree.ElementTree.parse(picture).getroot()
        self.assertEqual(drawn.tag, f"{SVG}svg")
        self.assertGreaterEqual(len(drawn.findall(f"{SVG}polyline")), 2)
        told = [title.text for title in drawn.iter(f"{SVG}title")]
        self.assertTrue(any(text.startswith("embedded ") and " 3 rows, " in text for text in told), told)

    def test_json_and_rows_that_a_fixed_shape_does_not_allow(self):
        folder = self.put(8)
        page = self.base / "out.html"
        done = tune(folder, "--json", "--batches=1,8", "--out", page, *QUICK)
        self.assertEqual(done.returncode, 0, done.stderr)
        told = json.loads(done.stdout)
        self.assertEqual((told["directory"], told["batches"]), (str(folder), [1, 8]))
        every = [entry for entry in told["engines"] if "runs" in entry]
        self.assertEqual([entry["engine"] for entry in every if entry["reference"]], ["tensorflow"])
        engines = {entry["engine"]: entry for entry in every}
        self.assertLess(engines["embedded"]["max_error"], 1e-4)
        for entry in engines.values():
            one, eight = entry["runs"]
            self.assertEqual(one, {"rows": 1, "ms": None})
            self.assertAlmostEqual(eight["rows_per_second"], 8e3 / eight["ms"], delta=1)
            self.assertGreater(entry["memory_bytes"], 1 << 20)
        self.assertIn("<svg ", page.read_text())

    def test_an_onnx_file_is_measured_on_the_engines_that_take_it(self):
        need_onnxruntime()
        folder = self.base / "m" / "1"
        folder.mkdir(parents=True)
        shutil.copy(ONNX, folder / "model.onnx")
        done = tune(folder.parent, "--json", "--batches=1,8", *QUICK)
        self.assertEqual(done.returncode, 0, done.stderr)
        engines = {entry["engine"] for entry in json.loads(done.stdout)["engines"]}
        self.assertEqual(engines - {"openvino"}, {"embedded", "onnxruntime"})
        self.assertEqual("openvino" in engines, bool(list(HOME.glob("engines/openvino/*/engine.json"))))

    def test_what_is_wrong_is_said(self):
        folder = self.put(None)
        for words, code, text in (
                ((), 2, "MODEL_DIR"),
                ((folder, "--batches=0"), 1, "--batches of 0: give numbers from 1"),
                ((folder, "--out=x.png"), 1, "the name must end in .svg or .html"),
                ((self.base / "gone",), 1, "gone cannot be read"),
                ((folder, "--signature=s", *QUICK), 1, "no engine that is installed runs the model")):
            done = tune(*words)
            self.assertEqual(done.returncode, code, done.stderr)
            self.assertIn(text, done.stderr)


if __name__ == "__main__":
    unittest.main()
