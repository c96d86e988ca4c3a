"""What a version's own folder says beside its graph: `assets.extra/saved_model_config.pb`."""

import pathlib
import re
import tempfile
import unittest

from server import SHARED, Server, need_shared, need_tensorflow
from test_program import WithModels, predict

TESTDATA = SHARED / "tfs-testdata"
WITH = TESTDATA / "saved_model_half_plus_two_cpu_with_saved_model_config"
EMPTY = TESTDATA / "saved_model_half_plus_two_cpu_with_empty_saved_model_config"
FILE = "assets.extra/saved_model_config.pb"
# session_overrides { disable_meta_optimizer: true }
NO_REWRITES = bytes([0x0a, 0x02, 0x18, 0x01])


class SavedModelConfigTest(WithModels):
    def serves(self, source, bytes_=None, *flags, **process):
        version = self.put(1, source)
        if bytes_ is not None:
            (version / FILE).write_bytes(bytes_)
        with Server(*self.flags(*flags), **process) as server:
            self.assertEqual(predict(server, [2.0, 5.0]), [3.0, 4.5])
            server.stop()
            return server.log()

    def test_the_originals_models_with_one_serve(self):
        log = self.serves(WITH)
        for field in ("remote_op_remap_config", "tfrt_runtime_config"):
            self.assertIn(f"{self.base / '1' / FILE} has a {field}, which no engine here knows; it is "
                          "passed over", log)

    def test_an_empty_one_says_nothing(self):
        self.assertNotIn(FILE, self.serves(EMPTY))

    def test_a_broken_one_is_a_warning(self):
        log = self.serves(EMPTY, b"\xff" * 20)
        self.assertIn(f"{self.base / '1' / FILE} is passed over: it is no SavedModelConfig", log)

    def test_graph_rewriting_is_turned_off(self):
        need_tensorflow()
        rewrites = {}
        for name, bytes_ in (("usual", b""), ("off", NO_REWRITES)):
            self.base = self.base.parent / name
            self.base.mkdir()
            log = self.serves(EMPTY, bytes_, "--engine=tensorflow", seconds=90,
                              environment={"TF_CPP_VMODULE": "meta_optimizer=1"})
            rewrites[name] = len(re.findall(r"meta_optimizer\.cc:\d+\] Starting optimization", log))
        self.assertGreater(rewrites["usual"], 0)
        self.assertEqual(rewrites["off"], 0)


if __name__ == "__main__":
    unittest.main()
