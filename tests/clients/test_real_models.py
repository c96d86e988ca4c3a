"""Trained models that packages carry and the original's own test models, on TensorFlow, asked by
the unmodified `tensorflow-serving-api` client and over REST."""

import base64
import json
import pathlib
import unittest

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import classification_pb2

from models import Client, Folders, Reference, content, package_folder
from server import SHARED, Server, need_shared, need_tensorflow
from test_program import ask, run, states

SOURCES = pathlib.Path(__file__).with_name("sources")
RATE_HZ = 22050
WINDOW = 43844
A0_MIDI = 21


def post(server, model, verb, body):
    status, text = ask(server, "POST", f"/v1/models/{model}:{verb}", json.dumps(body))
    if status != 200:
        raise AssertionError(f"{status}: {text}")
    return json.loads(text)


def joined(answers):
    """Answers to parts of a batch as one to all of it."""
    return {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}


class Served:
    """One server for all tests of a class; subclasses say which engine and which model."""

    engine = None
    model = None

    @classmethod
    def setUpClass(cls):
        need_tensorflow()
        cls.source = cls.files()
        cls.folders = cls("place")
        cls.folders.setUp()
        cls.addClassCleanup(cls.folders.doCleanups)
        cls.folders.link(cls.model, cls.source)
        cls.server = Server(*cls.folders.flags(cls.model, f"--engine={cls.engine}"))
        cls.addClassCleanup(cls.server.__exit__)
        cls.client = Client(cls.server)
        cls.addClassCleanup(cls.client.channel.close)
        cls.reference = Reference(cls.source)
        cls.addClassCleanup(cls.reference.close)

    def place(self):
        """Stands for a folder of the class."""


class Guesslang(Served):
    """TF1, exported by an Estimator: strings, hash tables, init operators."""

    model = "guesslang"

    @classmethod
    def files(cls):
        return package_folder("guesslang", "data", "model")

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        files = sorted(SOURCES.glob("*.txt"))
        cls.texts = [path.read_bytes() for path in files]
        cls.languages = [path.suffixes[0][1:].lower() for path in files]
        cls.want = cls.reference.run("predict", content=cls.texts)
        cls.classes = [c.decode() for c in cls.want["all_classes"][0]]

    def test_there_are_enough_sources(self):
        self.assertGreaterEqual(len(self.texts), 20)
        self.assertGreaterEqual(len(set(self.languages)), 8)

    def check_predict(self, answers):
        self.assertEqual([c[0].decode() for c in answers["classes"]], self.languages)
        self.assertEqual(answers["class_ids"].tolist(), self.want["class_ids"].tolist())
        for name in ("probabilities", "logits"):
            np.testing.assert_allclose(
                answers[name], self.want[name], rtol=1e-5, atol=1e-5, err_msg=name)

    def test_predict_over_grpc_alone_and_in_a_batch(self):
        self.check_predict(self.client.predict("guesslang", "predict", content=self.texts))
        alone = [self.client.predict("guesslang", "predict", content=[text]) for text in self.texts]
        self.check_predict(joined(alone))

    def test_predict_over_rest(self):
        encoded = [{"b64": base64.b64encode(text).decode()} for text in self.texts]
        answers = post(self.server, "guesslang", "predict", {
            "signature_name": "predict", "instances": [{"content": text} for text in encoded]})
        rows = answers["predictions"]
        self.check_predict({
            "classes": [[row["classes"][0].encode()] for row in rows],
            **{name: np.array([row[name] for row in rows])
               for name in ("class_ids", "probabilities", "logits")}})
        columns = post(self.server, "guesslang", "predict", {
            "signature_name": "predict", "inputs": {"content": encoded[:3]}})["outputs"]
        self.assertEqual([c[0] for c in columns["classes"]], self.languages[:3])

    def test_the_classify_signature_by_predict(self):
        answers = self.client.predict("guesslang", inputs=self.texts)
        tops = [classes[np.argmax(scores)].decode()
                for classes, scores in zip(answers["classes"], answers["scores"])]
        self.assertEqual(tops, self.languages)
        np.testing.assert_allclose(
            answers["scores"], self.want["probabilities"], rtol=1e-5, atol=1e-5)

    def check_classify(self, results):
        """`results` holds pairs of class and score. The signature takes text where others parse an
        Example, so it reads the serialized Example as text: TensorFlow is asked the same."""
        serialized = [self.example(text).SerializeToString(deterministic=True)
                      for text in self.texts]
        want = self.reference.run("serving_default", inputs=serialized)
        self.assertEqual(len(results), len(self.texts))
        right = 0
        for result, scores, language in zip(results, want["scores"], self.languages):
            self.assertEqual([label for label, _ in result], self.classes)
            np.testing.assert_allclose(
                [score for _, score in result], scores, rtol=1e-5, atol=1e-5, err_msg=language)
            right += max(result, key=lambda pair: pair[1])[0] == language
        self.assertGreaterEqual(right, 0.9 * len(self.texts))

    @staticmethod
    def example(text):
        return tf.train.Example(features=tf.train.Features(feature={
            "content": tf.train.Feature(bytes_list=tf.train.BytesList(value=[text]))}))

    def classify(self, texts):
        request = classification_pb2.ClassificationRequest()
        request.model_spec.name = "guesslang"
        request.input.example_list.examples.extend(self.example(text) for text in texts)
        answer = self.client.predictions.Classify(request, timeout=30)
        return [[(c.label, c.score) for c in row.classes]
                for row in answer.result.classifications]

    def test_classify_over_grpc_alone_and_in_a_batch(self):
        self.check_classify(self.classify(self.texts))
        self.check_classify([self.classify([text])[0] for text in self.texts])

    def test_classify_over_rest(self):
        answers = post(self.server, "guesslang", "classify", {"examples": [
            {"content": {"b64": base64.b64encode(text).decode()}} for text in self.texts]})
        self.check_classify(answers["results"])


class GuesslangOnTensorFlowTest(Guesslang, Folders):
    engine = "tensorflow"


class GuesslangOnAutoTest(Guesslang, Folders):
    engine = "auto"


def tone(keys):
    """Struck strings: each with harmonics that fade, the higher the sooner."""
    time = np.arange(WINDOW) / RATE_HZ
    sound = np.zeros(WINDOW)
    for key in keys:
        hertz = 440 * 2 ** ((key - 69) / 12)
        for harmonic in range(1, 7):
            sound += (np.sin(2 * np.pi * hertz * harmonic * time) / harmonic ** 1.5
                      * np.exp(-time * (0.6 + 0.4 * harmonic)))
    return (0.5 * sound / np.abs(sound).max()).astype(np.float32).reshape(1, WINDOW, 1)


def sine(hertz):
    time = np.arange(WINDOW) / RATE_HZ
    return (0.5 * np.sin(2 * np.pi * hertz * time)).astype(np.float32).reshape(1, WINDOW, 1)


def notes_in(note, count):
    """The keys that sound most in one window's `note` answer, as MIDI numbers."""
    return set((np.argsort(note.mean(axis=0))[-count:] + A0_MIDI).tolist())


class BasicPitch(Served):
    """TF2, from Keras: two seconds of sound to the notes in it."""

    model = "basic_pitch"
    rounding = 1e-4
    chords = ((60, 64, 67), (57, 60, 64), (53, 57, 60, 65))

    @classmethod
    def files(cls):
        return package_folder("basic_pitch", "saved_models", "icassp_2022", "nmp")

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.sounds = np.concatenate([sine(440), *map(tone, cls.chords)])
        cls.together = cls.reference.run("serving_default", input_2=cls.sounds)
        cls.alone = joined([cls.reference.run("serving_default", input_2=sound[None])
                            for sound in cls.sounds])

    def check(self, answers, want):
        for name in ("note", "onset", "contour"):
            np.testing.assert_allclose(
                answers[name], want[name], rtol=self.rounding, atol=self.rounding, err_msg=name)
            # A batch rounds otherwise, and silence between harmonics amplifies it, in TensorFlow, too.
            np.testing.assert_allclose(answers[name], self.together[name], atol=2e-3, err_msg=name)
        note = np.asarray(answers["note"])
        self.assertEqual(notes_in(note[0], 1), {69})
        self.assertGreater(note[0, :, 69 - A0_MIDI].mean(), 0.5)
        for chord, window in zip(self.chords, note[1:], strict=True):
            self.assertEqual(notes_in(window, len(chord)), set(chord))

    def test_over_grpc_alone_and_in_a_batch(self):
        answers = self.client.predict("basic_pitch", input_2=content(self.sounds))
        self.check(answers, self.together)
        self.check(joined([self.client.predict("basic_pitch", input_2=content(sound[None]))
                           for sound in self.sounds]), self.alone)

    def test_over_rest(self):
        rows = []
        for sound in self.sounds:
            rows += post(self.server, "basic_pitch", "predict",
                         {"instances": [{"input_2": sound.tolist()}]})["predictions"]
        self.check({name: np.array([row[name] for row in rows]) for name in rows[0]}, self.alone)


class BasicPitchOnTensorFlowTest(BasicPitch, Folders):
    engine = "tensorflow"


class BasicPitchOnEmbeddedTest(BasicPitch, Folders):
    engine = "embedded"
    # It sums in another order, which silence amplifies as much as it does a batch's in TensorFlow.
    rounding = 2e-3


class BasicPitchOnAutoTest(BasicPitch, Folders):
    """That the embedded engine is not within rounding of TensorFlow is found at load."""

    engine = "auto"


class OriginalModelsTest(Folders):
    """The models of the original's own end-to-end test, and those of its recorded answers."""

    HALF = ("saved_model_half_plus_two_cpu", "saved_model_half_plus_two_tf2_cpu",
            "saved_model_half_plus_two_2_versions", "saved_model_half_plus_two_mkl", "saved_model_half_plus_two_mlmd",
            "saved_model_half_plus_two_cpu_with_empty_saved_model_config",
            "saved_model_half_plus_two_cpu_with_saved_model_config")
    ELSEWHERE = ("saved_model_counter", "saved_model_half_plus_three", "bad_half_plus_two",
                 "saved_model_half_plus_two_gpu", "saved_model_half_plus_two_gpu_trt", "batching",
                 # TensorFlow Lite files only
                 "saved_model_half_plus_two_tflite", "saved_model_half_plus_two_tflite_with_sigdef",
                 "parse_example_tflite")

    @classmethod
    def setUpClass(cls):
        need_tensorflow()
        need_shared("tfs-testdata")
        need_shared("golden/models")
        cls.data = SHARED / "tfs-testdata"

    def test_no_model_is_left_out(self):
        there = {path.name for path in self.data.iterdir() if path.is_dir()}
        self.assertEqual(there, set(self.HALF) | set(self.ELSEWHERE))

    def test_half_plus_two_and_three(self):
        names = (*self.HALF, "saved_model_half_plus_three")
        matrix = "batching/matrix_half_plus_two"
        paths = {name: self.data / name for name in names}
        with Server(self.config(matrix=self.data / matrix, **paths),
                    "--engine=tensorflow", seconds=120) as server:
            client = self.connect(server)
            for name in names:
                with self.subTest(name):
                    add = 3 if name.endswith("three") else 2
                    self.assertIn("AVAILABLE", states(server, name).values())
                    for x in ([2.0], [[1.0, 5.0], [3.0, 4.0]], 7.0, []):
                        x = np.asarray(x, np.float32)
                        y = client.predict(name, x=x)["y"]
                        np.testing.assert_array_equal(y, x / 2 + add)
                    answer = post(server, name, "predict", {"instances": [0.0, 9.0]})
                    self.assertEqual(answer["predictions"], [add, 4.5 + add])
            x = np.arange(8, dtype=np.float32).reshape(2, 2, 2)
            np.testing.assert_array_equal(client.predict("matrix", x=x)["y"], x / 2 + 2)

    def test_models_that_end_failed(self):
        gpu = "was explicitly assigned to /device:GPU:0 but available devices are"
        cases = {
            "bad_half_plus_two": "NOT_FOUND: Specified file path does not appear to contain a "
                                 "SavedModel bundle",
            "saved_model_half_plus_two_gpu": gpu,
            "saved_model_half_plus_two_gpu_trt": gpu,
        }
        for name, text in cases.items():
            with self.subTest(name):
                done = run("--port=0", f"--grpc_socket_path={self.base / 's'}", "--model_name=m",
                           f"--model_base_path={self.data / name}", "--engine=tensorflow",
                           "--max_num_load_retries=0", seconds=60)
                self.assertEqual(done.returncode, 255, done.stdout)
                self.assertIn(text, done.stdout)

    def test_a_model_of_a_gpu_runs_where_the_session_allows_it(self):
        file = self.base / "session.config"
        file.write_text("allow_soft_placement: true")
        with Server(self.config(m=self.data / "saved_model_half_plus_two_gpu"),
                    "--engine=tensorflow", f"--tensorflow_session_config_file={file}") as server:
            self.assertEqual(post(server, "m", "predict", {"instances": [2.0]}),
                             {"predictions": [3.0]})

    def test_the_counter_counts_each_call_once(self):
        for engine in ("tensorflow", "auto"):
            with self.subTest(engine), Server(
                    self.config(counter=self.data / "saved_model_counter"),
                    f"--engine={engine}") as server:
                client = self.connect(server)

                def call(signature, **inputs):
                    return float(client.predict("counter", signature, **inputs)["output"].item())

                self.assertEqual(call("get_counter"), 0)
                for count in range(1, 26):
                    self.assertEqual(call("incr_counter"), count)
                self.assertEqual(call("get_counter"), 25)
                self.assertEqual(call("incr_counter_by", delta=np.float32(5)), 30)
                self.assertEqual(call("reset_counter"), 0)
                self.assertEqual(call("get_counter"), 0)

    def test_models_of_the_recorded_answers(self):
        models = SHARED / "golden" / "models"
        names = sorted(path.name for path in models.iterdir())
        with Server(self.config(**{name: models / name for name in names}),
                    "--engine=tensorflow", seconds=120) as server:
            client = self.connect(server)
            for name in names:
                with self.subTest(name):
                    self.assertIn("AVAILABLE", states(server, name).values())
            np.testing.assert_array_equal(
                client.predict("id_string", x=np.array([b"a", b"", b"\xff\0"], object))["y"],
                np.array([b"a", b"", b"\xff\0"], object))
            for name in (name for name in names if name.startswith("id_") and name != "id_string"):
                with self.subTest(name):
                    dtype = tf.as_dtype(name.removeprefix("id_"))
                    x = np.array([0, 1, 1, 0]).astype(dtype.as_numpy_dtype)
                    y = client.predict(name, x=content(x))["y"]
                    self.assertEqual(y.dtype, x.dtype)
                    np.testing.assert_array_equal(y, x)


if __name__ == "__main__":
    unittest.main()
