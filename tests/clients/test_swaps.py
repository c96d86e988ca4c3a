"""Fifty swaps between two versions that answer differently, under calls that come at a fixed rate.

Every answer is checked together with the version that it says it is of. `SwapsTest` runs on the
embedded engine; a class with other `FLAGS` runs on another.
"""

import shutil
import time
import unittest

from load import OpenLoop
from server import SHARED, Server, need_tensorflow
from test_program import MODEL, WithModels, states, wait_for

THREE = SHARED / "tfs-testdata" / "saved_model_half_plus_three"


class Swaps:
    """What an engine has to stand; mixed into a test case."""

    FLAGS = ()
    SWAPS = 50
    RATE = 150

    def judge(self, answer):
        """2.0 / 2 + 2 is the answer of even versions, 2.0 / 2 + 3 that of odd ones."""
        version = answer.model_spec.version.value
        y = list(answer.outputs["y"].float_val)
        wanted = [3.0] if version % 2 == 0 else [4.0]
        return None if y == wanted and version > 0 else (version, y)

    def test_no_swap_costs_or_spoils_an_answer(self):
        sources = [MODEL, THREE]
        self.put(2, sources[0])
        with Server(*self.flags("--file_system_poll_wait_seconds=1", *self.FLAGS)) as server:
            with OpenLoop(server, "m", self.RATE, self.judge) as load:
                for swap in range(self.SWAPS):
                    version = 3 + swap
                    self.put(version, sources[version % 2])
                    self.assertTrue(wait_for(
                        lambda: states(server).get(str(version)) == "AVAILABLE"
                        and states(server).get(str(version - 1)) == "END", 30), states(server))
                    shutil.rmtree(self.base / str(version - 1))
                time.sleep(0.2)
            print(f"\n{load.summary(f'{self.SWAPS} swaps')}", flush=True)
        self.assertGreater(load.sent, 10 * self.SWAPS)
        self.assertEqual(load.done(), load.sent)
        self.assertEqual(load.failed, [])
        self.assertEqual(load.wrong, [])


class SwapsTest(Swaps, WithModels):
    pass


class SwapsInWorkersTest(Swaps, WithModels):
    FLAGS = ("--isolation=worker",)
    SWAPS = 10


class SwapsOnTensorFlowTest(Swaps, WithModels):
    FLAGS = ("--engine=tensorflow",)

    def setUp(self):
        need_tensorflow()
        super().setUp()


if __name__ == "__main__":
    unittest.main()
