"""Models whose base path is in an object store, over HTTP against a store that runs here."""

import time

import unittest

from object_store import ObjectStore
from server import SHARED, Server, can_connect, free_port
from test_program import MODEL, WithModels, predict, run, states, wait_for

TWO = MODEL / "00000123"
THREE = SHARED / "tfs-testdata" / "saved_model_half_plus_three" / "00000123"


class StoreTest(WithModels):
    def setUp(self):
        super().setUp()
        self.store = ObjectStore()
        self.addCleanup(self.store.__exit__)
        self.cache = self.base.parent / "copies"
        self.place = "models/prod/m"

    def flags(self, *more):
        return ("--model_name=m", f"--model_base_path=s3://{self.place}",
                f"--model_cache_path={self.cache}", "--max_num_load_retries=0", *more)

    def serve(self, *more, **options):
        return Server(*self.flags(*more), environment=self.store.environment, **options)

    def copies(self):
        """Versions of which there is a whole copy."""
        return sorted(path.name.split("-")[0] for path in self.cache.glob("*/*") if path.is_dir())

    def test_versions_come_and_go(self):
        self.store.put(f"{self.place}/1", TWO)
        # What is no version is passed over, and so is what only begins alike.
        self.store.put(f"{self.place}/2.tmp", THREE)
        self.store.put(f"{self.place}er/9", THREE)
        with self.serve() as server:
            self.assertEqual(states(server), {"1": "AVAILABLE"})
            self.assertEqual(predict(server, [2.0]), [3.0])
            self.store.put(f"{self.place}/0002", THREE)
            self.assertTrue(wait_for(
                lambda: states(server) == {"1": "END", "2": "AVAILABLE"}), server.log())
            self.assertEqual(predict(server, [2.0]), [4.0])
            self.assertTrue(wait_for(lambda: self.copies() == ["2"]), self.copies())
            self.assertIn(f"fetching s3://{self.place}/0002", server.log())
            self.assertEqual(server.stop(), 0)

    def test_a_copy_is_used_again(self):
        self.store.put(f"{self.place}/1", TWO)
        with self.serve() as server:
            self.assertEqual(server.stop(), 0)
        self.assertEqual(self.copies(), ["1"])
        count = len(self.store.fetched)
        with self.serve() as server:
            self.assertEqual(predict(server, [2.0]), [3.0])
            self.assertEqual(len(self.store.fetched), count, "nothing was fetched again")
        graph, = self.cache.glob("*/*/saved_model.pb")
        graph.write_bytes(b"damaged")
        with self.serve() as server:
            self.assertEqual(predict(server, [2.0]), [3.0])
            self.assertIn("is fetched anew", server.log())

    def test_transfers_that_are_cut_or_damaged(self):
        self.store.put(f"{self.place}/1", TWO)
        self.store.cut[f"{self.place}/1/saved_model.pb"] = 1
        name, = [key for key in self.store.objects if key.endswith(".data-00000-of-00001")]
        self.store.damaged[name] = 1
        with self.serve("--max_num_load_retries=3", "--load_retry_interval_micros=100000") as server:
            self.assertEqual(predict(server, [2.0]), [3.0])
            self.assertIn("is not what its tag says, so it is fetched again", server.log())

    def test_an_upload_under_way_is_tried_again(self):
        self.store.put(f"{self.place}/1", TWO)
        with self.serve("--max_num_load_retries=30",
                        "--load_retry_interval_micros=200000") as server:
            graph = f"{self.place}/2/saved_model.pb"
            self.store.put(f"{self.place}/2", THREE)
            self.store.objects.pop(graph)
            self.assertTrue(wait_for(
                lambda: states(server) == {"1": "AVAILABLE", "2": "LOADING"}), states(server))
            self.assertEqual(predict(server, [2.0]), [3.0])
            self.store.objects[graph] = (THREE / "saved_model.pb").read_bytes()
            self.assertTrue(wait_for(
                lambda: states(server) == {"1": "END", "2": "AVAILABLE"}), server.log())
            self.assertEqual(predict(server, [2.0]), [4.0])
            self.assertTrue(wait_for(lambda: self.copies() == ["2"]), self.copies())

    def test_a_store_that_hangs_holds_up_no_other_model(self):
        self.put(1)
        self.store.put(f"{self.place}/1", TWO)
        config = self.base.parent / "models.config"
        config.write_text("model_config_list {" + "".join(
            f'config {{ name: "{name}" base_path: "{base}" model_platform: "tensorflow" }}'
            for name, base in (("remote", f"s3://{self.place}"), ("m", self.base))) + "}")
        with self.serve(f"--model_config_file={config}") as server:
            self.assertEqual(predict(server, [2.0], "remote"), [3.0])
            self.store.open.clear()
            time.sleep(1.5)
            self.put(2, THREE.parent)
            self.assertTrue(wait_for(
                lambda: states(server) == {"1": "END", "2": "AVAILABLE"}, 5), states(server))
            self.assertEqual(predict(server, [2.0], "remote"), [3.0])
            started = time.monotonic()
            self.assertEqual(server.stop(), 0)
            self.assertLess(time.monotonic() - started, 5, "the end waits for no store")

    def test_an_emptied_prefix_keeps_serving(self):
        self.store.put(f"{self.place}/1", TWO)
        with self.serve() as server:
            self.store.remove(self.place)
            text = (f"Could not find base path s3://{self.place} for servable m with error "
                    f"NOT_FOUND: s3://{self.place} not found")
            self.assertTrue(wait_for(lambda: text in server.log()), server.log())
            self.assertEqual(states(server), {"1": "AVAILABLE"})
            self.assertEqual(predict(server, [2.0]), [3.0])

    def test_a_cache_that_cannot_be_written_ends_the_start(self):
        self.cache.write_text("a file")
        done = run(f"--port={free_port()}", *self.flags())
        self.assertEqual(done.returncode, 255)
        self.assertIn("FAILED_PRECONDITION: models cannot be copied to", done.stdout)
        self.assertIn("--model_cache_path", done.stdout)

    def test_plain_http_only_when_it_is_asked_for(self):
        self.store.put(f"{self.place}/1", TWO)
        environment = {**self.store.environment, "AWS_ALLOW_HTTP": "false"}
        with Server(*self.flags(), environment=environment, wait=False) as server:
            text = f"Could not find base path s3://{self.place} for servable m with error"
            self.assertTrue(wait_for(lambda: text in server.log()), server.log())
            self.assertFalse(can_connect(server.rest_port))
        self.assertEqual(self.store.fetched, [])


if __name__ == "__main__":
    unittest.main()
