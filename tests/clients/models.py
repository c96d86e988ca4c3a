"""Models that come in packages or are made here, and what TensorFlow itself says of them.

Owns: finding the files of packages, folders that a server reads, reference answers, stubs.
"""

import importlib.util
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

import grpc
import numpy as np
# The first session fixes the threads of the whole process, whichever test makes it, and rounding
# depends on them.
os.environ["TF_NUM_INTRAOP_THREADS"] = "1"

import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2, model_management_pb2, model_service_pb2_grpc, predict_pb2,
    prediction_service_pb2_grpc)

from server import Server, missing
from test_program import ask, run


def package_folder(package, *parts):
    """A folder of an installed package, which is not imported."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        missing(f"the package {package} is not installed")
    return pathlib.Path(found.submodule_search_locations[0]).joinpath(*parts)


class Reference:
    """A SavedModel in TensorFlow's own Python, by its C++ loader's rules (tags, tensor names)."""

    def __init__(self, folder, tags=("serve",)):
        # As many threads within an operator as a version has by default: rounding depends on it.
        threads = tf.compat.v1.ConfigProto(intra_op_parallelism_threads=1)
        self.session = tf.compat.v1.Session(graph=tf.Graph(), config=threads)
        with self.session.graph.as_default():
            loaded = tf.compat.v1.saved_model.loader.load(self.session, list(tags), str(folder))
        self.signatures = loaded.signature_def

    def run(self, signature, **inputs):
        spec = self.signatures[signature]
        return self.session.run(
            {name: info.name for name, info in spec.outputs.items()},
            {spec.inputs[name].name: value for name, value in inputs.items()})

    def close(self):
        self.session.close()


EXACT = """
import sys
import numpy as np
from models import Reference
folder, runs = sys.argv[1], sys.argv[2:]
reference = Reference(folder)
for run in runs:
    np.savez(run + ".answers.npz", **reference.run("serving_default", **np.load(run)))
"""


def exact_answers(folder, runs):
    """What TensorFlow answers to each of `runs`, inputs by name, with kernels of its own, in a process of its own.

    oneDNN's, which it takes by default, are off by hundredths at some convolutions where the processor has
    AVX-512 in full.
    """
    with tempfile.TemporaryDirectory() as place:
        files = [str(pathlib.Path(place) / f"{number}.npz") for number in range(len(runs))]
        for file, inputs in zip(files, runs):
            np.savez(file, **inputs)
        env = {**os.environ, "TF_ENABLE_ONEDNN_OPTS": "0"}
        subprocess.run([sys.executable, "-c", EXACT, str(folder), *files], check=True, capture_output=True,
                       cwd=pathlib.Path(__file__).parent, env=env, timeout=300)
        return [dict(np.load(file + ".answers.npz")) for file in files]


class Folders(unittest.TestCase):
    """A test with a folder of models: `BASE/MODEL/VERSION`."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.base = pathlib.Path(folder.name)

    def link(self, model, source, version=1):
        path = self.base / model / str(version)
        path.parent.mkdir(exist_ok=True)
        path.symlink_to(source)
        return path

    def flags(self, model, *more):
        return (f"--model_name={model}", f"--model_base_path={self.base / model}",
                "--max_num_load_retries=0", *more)

    def config(self, **paths):
        """The flag of a file that lists models."""
        entries = "".join(
            f'config {{ name: "{name}" base_path: "{path}" model_platform: "tensorflow" }}\n'
            for name, path in paths.items())
        path = self.base / "models.config"
        path.write_text(f"model_config_list {{\n{entries}}}\n")
        return f"--model_config_file={path}"

    def connect(self, server):
        client = Client(server)
        self.addCleanup(client.channel.close)
        return client


class KeptModels(Folders):
    """Tests of models of one format that are kept beside the engine's own tests."""

    kept = None  # their folder
    file = None  # what one is called in a version

    def put(self, name, version=1, model=None, file=None):
        """A version with one of the kept models in it."""
        folder = self.base / (model or name) / str(version)
        folder.mkdir(parents=True)
        kept = (self.kept / name).with_suffix(pathlib.Path(self.file).suffix)
        put = folder / (file or self.file)
        shutil.copy(kept, put)
        if kept.suffix == ".xml":  # its weights lie beside it
            shutil.copy(kept.with_suffix(".bin"), put.with_suffix(".bin"))
        return folder

    def serve(self, name, *more, file=None):
        self.put(name, file=file)
        return Server(*self.flags(name, *more))

    def refused(self, model, *more):
        """What the program says that serves no such model."""
        done = run("--port=0", f"--grpc_socket_path={self.base / 's'}", "--strict_startup",
                   *self.flags(model, *more), seconds=60)
        self.assertEqual(done.returncode, 255, done.stdout)
        return done.stdout

    def post(self, server, model, **body):
        status, text = ask(server, "POST", f"/v1/models/{model}:predict", json.dumps(body))
        return status, json.loads(text)

    def signatures(self, server, model):
        """What GetModelMetadata tells of them."""
        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        request.model_spec.name = model
        answer = self.connect(server).predictions.GetModelMetadata(request)
        found = get_model_metadata_pb2.SignatureDefMap()
        answer.metadata["signature_def"].Unpack(found)
        return found.signature_def

    def workers(self, server):
        """The processes of the workers that served, in their order."""
        return [int(pid) for pid in re.findall(r"worker serves.*pid=(\d+)", server.log())]


class Client:
    """The API package's stubs."""

    def __init__(self, server):
        self.channel = grpc.insecure_channel(
            f"127.0.0.1:{server.grpc_port}", options=[("grpc.max_receive_message_length", -1)])
        self.predictions = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self.models = model_service_pb2_grpc.ModelServiceStub(self.channel)

    def predict(self, model, signature="", timeout=30, **inputs):
        """Arrays by output name; arrays travel as `tensor_content`."""
        request = predict_pb2.PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = model, signature
        for name, value in inputs.items():
            request.inputs[name].CopyFrom(
                value if isinstance(value, tensor_pb2.TensorProto) else tf.make_tensor_proto(value))
        answer = self.predictions.Predict(request, timeout=timeout)
        return {name: tf.make_ndarray(tensor) for name, tensor in answer.outputs.items()}

    def reload(self, timeout=30, **paths):
        request = model_management_pb2.ReloadConfigRequest()
        for name, path in paths.items():
            entry = request.config.model_config_list.config.add()
            entry.name, entry.base_path, entry.model_platform = name, str(path), "tensorflow"
        return self.models.HandleReloadConfigRequest(request, timeout=timeout)


def content(array):
    """A tensor whose numbers travel as bytes in one piece."""
    array = np.asarray(array, order="C")
    return tensor_pb2.TensorProto(
        dtype=tf.as_dtype(array.dtype).as_datatype_enum,
        tensor_shape=tf.TensorShape(array.shape).as_proto(), tensor_content=array.tobytes())


def save(folder, function, *specs):
    """Writes a TF2 SavedModel whose one signature is `function`."""
    module = tf.Module()
    module.serve = tf.function(function, input_signature=specs)
    tf.saved_model.save(module, str(folder), signatures=module.serve)


def save_graph(folder, build, tags=("serve",)):
    """Writes a TF1 SavedModel; `build` makes the graph and gives inputs and outputs by name."""
    builder = tf.compat.v1.saved_model.Builder(str(folder))
    add_graph(builder, build, tags)
    builder.save()


def add_graph(builder, build, tags, first=True):
    """One graph of a TF1 SavedModel; `build` may give further arguments of the builder."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        inputs, outputs, *more = build()
        session.run(tf.compat.v1.global_variables_initializer())
        signature = tf.compat.v1.saved_model.predict_signature_def(inputs, outputs)
        arguments = dict(signature_def_map={"serving_default": signature},
                         **(more[0] if more else {}))
        if first:
            builder.add_meta_graph_and_variables(session, list(tags), **arguments)
        else:
            builder.add_meta_graph(list(tags), **arguments)
