"""Whole networks as ONNX files on the embedded engine, held to ONNX Runtime at open sizes.

Published ones, and small ones built by hand in the way that PyTorch and PaddlePaddle write them.
"""

import pathlib
import shutil
import unittest

import numpy as np
import onnx
import onnx.numpy_helper
import onnxruntime

from models import Folders, package_folder
from onnx_nets import NETS
from server import Server

ENGINE = "--engine=embedded"


class NetsTest(Folders):
    def hold(self, nets):
        """`nets` has for each name a file's content, or its path, and lists of inputs."""
        paths = {}
        for name, (model, _) in nets.items():
            folder = self.base / name / "1"
            folder.mkdir(parents=True)
            if isinstance(model, pathlib.Path):
                shutil.copy(model, folder / "model.onnx")
            else:
                (folder / "model.onnx").write_bytes(model)
            paths[name] = folder.parent
        with Server(self.config(**paths), ENGINE, seconds=120) as server:
            client = self.connect(server)
            for name, (model, all_given) in nets.items():
                model = str(model) if isinstance(model, pathlib.Path) else model
                session = onnxruntime.InferenceSession(model)
                names = [end.name for end in session.get_outputs()]
                for given in all_given:
                    shapes = [value.shape for value in given.values()]
                    with self.subTest(name, shapes=shapes):
                        wanted = session.run(names, given)
                        answer = client.predict(name, timeout=120, **given)
                        for key, want in zip(names, wanted):
                            got = answer[key]
                            self.assertEqual((got.shape, got.dtype), (want.shape, want.dtype), key)
                            largest = max(1e-6, float(np.abs(want).max()))
                            worst = float(np.abs(got - want).max()) / largest
                            self.assertLess(worst, 1e-4, key)

    def test_networks_in_the_way_of_exporters(self):
        self.hold({name: (net.content(), net.given()) for name, net in NETS.items()})

    def test_a_published_network_of_tf2onnx(self):
        path = package_folder("basic_pitch", "saved_models", "icassp_2022", "nmp.onnx")
        # Of noise: pure tones leave silent bands, whose logarithms make much of the last bit. ONNX Runtime
        # differs from itself by 1e-3 there, with and without its optimisations.
        dice = np.random.default_rng(3)
        sound = [{"serving_default_input_2:0": dice.normal(size=(rows, 43844, 1)).astype(np.float32)}
                 for rows in (1, 2)]
        self.hold({"pitch": (path, sound)})

    def test_networks_of_the_onnx_package(self):
        """Published ones of Caffe2, whose weights were taken out; here they are random."""
        folder = pathlib.Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
        found = {}
        for name in ("densenet121", "inception_v1", "inception_v2", "resnet50", "shufflenet", "squeezenet"):
            model = onnx.load(folder / f"light_{name}.onnx")
            end = self.fill(model.graph)
            model.ir_version = 8  # so that constants need not be inputs, too
            image = np.random.default_rng(1).normal(size=(1, 3, 224, 224)).astype(np.float32)
            found[name] = (model.SerializeToString(), [{end: image}])
        self.hold(found)

    def fill(self, graph):
        """Puts random weights in the places of shapes, and gives the name of the input that is left."""
        dice = np.random.default_rng(2)
        shapes = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
        kept = []
        for node in graph.node:
            if node.op_type != "ConstantOfShape":
                kept.append(node)
                continue
            shape = shapes[node.input[0]]
            if len(shape) < 2:
                values = dice.uniform(0.5, 1.5, shape)
            else:
                values = dice.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:]))
            graph.initializer.append(onnx.numpy_helper.from_array(values.astype(np.float32), node.output[0]))
        del graph.node[:]
        graph.node.extend(kept)
        constants = {tensor.name for tensor in graph.initializer}
        ends = [end for end in graph.input if end.name not in constants]
        [name] = [end.name for end in ends]
        del graph.input[:]
        graph.input.extend(ends)
        return name


if __name__ == "__main__":
    unittest.main()
