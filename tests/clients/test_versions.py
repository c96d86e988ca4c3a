"""Version directories in every form that the original takes, under the built program."""

import shutil
import time
import unittest

from server import SHARED, Server
from test_program import TF2, WithModels, predict, states, wait_for

THREE = SHARED / "tfs-testdata" / "saved_model_half_plus_three"


class FormsTest(WithModels):
    def config(self, policy):
        path = self.base.parent / "models.config"
        path.write_text(f'model_config_list {{ config {{ name: "m" base_path: "{self.base}" '
                        f'model_platform: "tensorflow" model_version_policy {{ {policy} }} }} }}')
        return (f"--model_config_file={path}", "--max_num_load_retries=0")

    def test_names_of_every_form(self):
        for name in ("0001", "+5", " 7", "-3", "0", "1700000000", "9223372036854775807",
                     "9223372036854775808", "2.tmp", "v8", ".9"):
            self.put(name)
        with Server(*self.config("all {}")) as server:
            want = {name: "AVAILABLE" for name in
                    ("9223372036854775807", "1700000000", "7", "5", "1", "0", "-3")}
            self.assertTrue(wait_for(lambda: states(server) == want), states(server))
            (self.base / "11").write_text("a plain file")
            self.assertTrue(wait_for(lambda: states(server).get("11") == "END"), states(server))
            self.assertEqual({**states(server), "11": "END"}, {**want, "11": "END"})
            self.assertIn("Error while attempting to reserve resources to load servable {name: m "
                          f"version: 11}}: {self.base / '11'}; Not a directory", server.log())
            self.assertEqual(predict(server, [2.0]), [3.0])

    def test_a_specific_version_that_is_not_there_is_told_once(self):
        self.put(1)
        with Server(*self.config("specific { versions: 1 versions: 4 }")) as server:
            time.sleep(2.2)
            self.assertEqual(states(server), {"1": "AVAILABLE"})
            self.assertEqual(server.log().count("version 4 of servable m is configured, but is not"),
                             1)
            self.put(4, THREE)
            self.assertTrue(wait_for(lambda: states(server).get("4") == "AVAILABLE"))


class LinksTest(WithModels):
    """As Kubernetes lays out volumes: base paths and versions behind links that are exchanged."""

    def setUp(self):
        super().setUp()
        self.behind = self.base.parent / "behind"
        self.behind.mkdir()
        self.base.rmdir()

    def generation(self, number, *versions):
        """A folder with these versions, exchanged in one step for what `..data` was."""
        folder = self.behind / f"..{number}"
        folder.mkdir()
        for version, source in versions:
            shutil.copytree(source / "00000123", folder / str(version))
        new = self.behind / "..new"
        new.symlink_to(folder.name)
        new.rename(self.behind / "..data")

    def test_base_and_versions_behind_links(self):
        self.generation(1, (1, TF2))
        (self.behind / "1").symlink_to("..data/1")
        self.base.symlink_to(self.behind)
        with Server(*self.flags()) as server:
            self.assertEqual(states(server), {"1": "AVAILABLE"})
            self.generation(2, (1, TF2), (2, THREE))
            (self.behind / "2").symlink_to("..data/2")
            self.assertTrue(wait_for(
                lambda: states(server) == {"1": "END", "2": "AVAILABLE"}), states(server))
            self.assertEqual(predict(server, [2.0]), [4.0])
            (self.behind / "3").symlink_to("nowhere")
            self.assertTrue(wait_for(lambda: states(server).get("3") == "END"), states(server))
            self.assertEqual(states(server)["2"], "AVAILABLE")
            self.assertEqual(predict(server, [2.0]), [4.0])
            self.assertIn("Error while attempting to reserve resources to load servable {name: m "
                          f"version: 3}}: {self.base / '3'} not found", server.log())

    def test_the_base_itself_is_what_is_exchanged(self):
        self.generation(1, (1, TF2))
        self.base.symlink_to(self.behind / "..data")
        with Server(*self.flags()) as server:
            self.generation(2, (2, THREE))
            self.assertTrue(wait_for(
                lambda: states(server) == {"1": "END", "2": "AVAILABLE"}), states(server))
            self.assertEqual(predict(server, [2.0]), [4.0])


if __name__ == "__main__":
    unittest.main()
