"""Two releases of one engine in one server, each named by the model that needs it."""

import json
import pathlib
import re
import subprocess
import unittest

from models import Folders
from server import BIN, HOME, SHARED, Server, missing, need_shared, need_tensorflow
from test_choice import METRICS
from test_program import ask

MODEL = SHARED / "tfs-testdata" / "saved_model_half_plus_two_cpu" / "00000123"


def release(prefix):
    """The installed release of TensorFlow that begins so."""
    found = [path.name for path in (HOME / "engines" / "tensorflow").glob(f"{prefix}.*")
             if (path / "engine.json").is_file()]
    if not found:
        missing(f"tensorflow=={prefix} is not installed")
    return max(found)


class ReleasesTest(Folders):
    def setUp(self):
        super().setUp()
        need_shared("tfs-testdata")
        need_tensorflow()
        self.old, self.new = release("2.15"), release("2.21")

    def put(self, model, engine):
        self.link(model, MODEL, 123)
        (self.base / model / "vesta.toml").write_text(f'engine = "{engine}"\n')

    def libraries(self, server):
        """The folders that the library of each model's worker was opened from."""
        workers = re.findall(r"worker serves model=(\w+) .*pid=(\d+)", server.log())
        maps = {model: pathlib.Path(f"/proc/{pid}/maps").read_text() for model, pid in workers}
        opened = {model: re.findall(r"\S+/libtensorflow_cc\.so\.2", text) for model, text in maps.items()}
        return {model: {pathlib.Path(path).parent.name for path in paths}
                for model, paths in opened.items()}

    def test_each_model_has_the_release_that_it_names(self):
        # The first two numbers are enough of a name.
        self.put("old", "tensorflow==2.15")
        self.put("new", f"tensorflow=={self.new}")
        with Server(self.config(old=self.base / "old", new=self.base / "new"),
                    f"--monitoring_config_file={self.monitoring()}", seconds=60) as server:
            for model in ("old", "new", "old"):
                status, text = ask(server, "POST", f"/v1/models/{model}:predict",
                                   json.dumps({"instances": [1.0, 2.0, -4.0]}))
                self.assertEqual((status, json.loads(text)), (200, {"predictions": [2.5, 3.0, 0.0]}))
            self.assertEqual(self.libraries(server), {"old": {self.old}, "new": {self.new}})

            _, page = ask(server, "GET", METRICS)
            shown = re.findall(r'^vesta_engine_choice_info\{(.*)\} 1$', page, re.M)
            labels = [dict(re.findall(r'(\w+)="([^"]*)"', text)) for text in shown]
            told = {label["model_name"]: (label["engine"], label["engine_version"]) for label in labels}
            self.assertEqual(told, {"old": ("tensorflow", self.old), "new": ("tensorflow", self.new)})

            table = subprocess.run([BIN / "vesta", "status", str(server.rest_port)],
                                   capture_output=True, text=True, timeout=60, check=True).stdout
            for model, version in (("old", self.old), ("new", self.new)):
                self.assertRegex(table, rf"(?m)^{model} +123 +- +AVAILABLE +tensorflow {version} +named +worker ")

    def monitoring(self):
        path = self.base / "monitoring.config"
        path.write_text("prometheus_config { enable: true }")
        return path


if __name__ == "__main__":
    unittest.main()
