"""`vesta engine` of the built program: wheels made here, through --from-wheel and through pip.

No network: pip is given folders and pages of its own by the settings that users have.
"""

import base64
import hashlib
import json
import os
import pathlib
import platform
import shutil
import signal
import subprocess
import tempfile
import time
import unittest
import zipfile

from server import BIN

ARCH = platform.machine()
FILES = {
    "tensorflow/libtensorflow_cc.so.2": b"the library " * 1000,
    "tensorflow/libtensorflow_framework.so.2": b"the other library",
    "tensorflow/__init__.py": b"",
    "tensorflow/THIRD_PARTY_NOTICES.txt": b"notices",
}


def make_wheel(folder, version="2.0.9", files=None, python="cp312", package="tensorflow_cpu"):
    """A wheel that pip takes, too; gives its path."""
    dist = f"{package}-{version}.dist-info"
    tag = f"{python}-{python}-manylinux_2_17_{ARCH}"
    path = pathlib.Path(folder) / f"{package}-{version}-{tag}.whl"
    contents = dict(files or FILES)
    contents[f"{dist}/METADATA"] = (
        f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n".encode())
    contents[f"{dist}/WHEEL"] = (
        f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: false\nTag: {tag}\n".encode())
    contents[f"{dist}/LICENSE"] = b"licence"
    record = ""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            record += f"{name},sha256={digest},{len(data)}\n"
        archive.writestr(f"{dist}/RECORD", record + f"{dist}/RECORD,,\n")
    return path


def sha256(path):
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


class EngineStoreTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.home = self.folder / "home"
        self.wheels = self.folder / "wheels"
        self.wheels.mkdir()

    def environment(self, **more):
        """The caller's, without pip settings of his own and with a store of the test's."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PIP_")}
        return {**kept, "VESTA_HOME": str(self.home), "PIP_CONFIG_FILE": os.devnull,
                "PIP_NO_INDEX": "1", "PIP_NO_CACHE_DIR": "1", **more}

    def vesta(self, *words, **more):
        return subprocess.run([BIN / "vesta", "engine", *map(str, words)], text=True, timeout=120,
                              capture_output=True, env=self.environment(**more), check=False)

    def succeeds(self, *words, **more):
        done = self.vesta(*words, **more)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done

    def fails(self, *words, **more):
        done = self.vesta(*words, **more)
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        return done.stderr

    def installed(self):
        entries = json.loads(self.succeeds("list", "--json").stdout)["installed"]
        return [f"{entry['name']}=={entry['version']}" for entry in entries]

    def leftovers(self):
        return [path.name for path in (self.home / "engines").glob(".unfinished-*")]

    def fake_python(self, script):
        """A PATH whose python3 is this script."""
        folder = self.folder / "bin"
        folder.mkdir(exist_ok=True)
        program = folder / "python3"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        return f"{folder}:/usr/bin:/bin"

    def test_a_wheel_is_installed_listed_and_removed(self):
        wheel = make_wheel(self.wheels)
        done = self.succeeds("install", "--from-wheel", wheel, PATH="/nonexistent")
        folder = self.home / "engines/tensorflow/2.0.9"
        self.assertIn(f"installed tensorflow==2.0.9 in {folder} (", done.stdout)
        self.assertIn("only the sums inside the wheel were checked", done.stdout)
        self.assertEqual(sorted(p.name for p in folder.iterdir()), [
            "engine.json", "libtensorflow_cc.so.2", "libtensorflow_framework.so.2", "licenses"])
        for name, data in FILES.items():
            if ".so." in name:
                self.assertEqual((folder / pathlib.Path(name).name).read_bytes(), data)
        self.assertEqual(len([p for p in (folder / "licenses").rglob("*") if p.is_file()]), 2)
        described = json.loads((folder / "engine.json").read_text())
        self.assertEqual(
            {k: described[k] for k in ("name", "version", "package", "wheel", "sha256", "arch")},
            {"name": "tensorflow", "version": "2.0.9", "package": "tensorflow-cpu",
             "wheel": wheel.name, "sha256": sha256(wheel), "arch": ARCH})

        again = self.succeeds("install", "tensorflow==2.0.9", "--from-wheel", wheel)
        self.assertEqual(again.stdout, f"tensorflow==2.0.9 is already installed in {folder}\n")
        self.succeeds("install", "--from-wheel", make_wheel(self.wheels, "2.0.10"))
        self.assertEqual(self.installed(), ["tensorflow==2.0.10", "tensorflow==2.0.9"])
        table = self.succeeds("list").stdout
        self.assertIn("ENGINE", table)
        self.assertIn(str(folder), table)

        text = self.fails("remove", "tensorflow")
        self.assertIn("name one: tensorflow==2.0.10, tensorflow==2.0.9", text)
        self.assertEqual(self.succeeds("remove", "tensorflow==2.0.10").stdout,
                         "removed tensorflow==2.0.10\n")
        self.assertEqual(self.succeeds("remove", "tensorflow").stdout,
                         "removed tensorflow==2.0.9\n")
        self.assertEqual(self.installed(), [])
        self.assertIn("no engines are installed in", self.succeeds("list").stdout)

    def test_hostile_and_damaged_wheels_leave_nothing(self):
        wheel = make_wheel(self.wheels)
        good = wheel.read_bytes()
        wheel.write_bytes(good[:-50])
        self.assertIn("damaged or truncated", self.fails("install", "--from-wheel", wheel))
        wheel.write_bytes(good)
        with zipfile.ZipFile(wheel, "a") as archive:
            archive.writestr("../../evil", b"evil")
        self.assertIn("the wheel is refused", self.fails("install", "--from-wheel", wheel))
        wheel.write_bytes(good)
        text = self.fails("install", "--from-wheel", wheel, "--sha256", "0" * 64)
        self.assertIn(f"has sha256 {sha256(wheel)}, but --sha256 expects 000", text)
        self.assertEqual([p.name for p in (self.home / "engines").iterdir()], [".lock"])
        self.assertFalse((self.folder / "evil").exists())

    def test_pip_installs_by_the_sum_given(self):
        # The only Python that has a wheel is neither the first tried nor the caller's.
        wheel = make_wheel(self.wheels, python="cp310")
        links = {"PIP_FIND_LINKS": str(self.wheels)}
        text = self.fails("install", "tensorflow==2.0.9", **links)
        self.assertIn("neither this vesta nor the package index vouches for", text)
        self.assertIn("--sha256 HEX", text)
        self.fails("install", "tensorflow==2.0.9", "--sha256", "0" * 64, **links)
        self.assertEqual(self.leftovers(), [])
        done = self.succeeds("install", "tensorflow==2.0.9", "--sha256", sha256(wheel), **links)
        self.assertIn("its wheel has the sha256 of --sha256", done.stdout)
        self.assertIn("downloading tensorflow-cpu==2.0.9", done.stderr)
        self.assertEqual(self.installed(), ["tensorflow==2.0.9"])

    def test_pip_installs_by_the_indexs_sum(self):
        page = self.folder / "index.html"
        links = ""
        for version in ("2.0.9", "2.0.10"):
            wheel = make_wheel(self.wheels, version)
            links += f'<a href="{wheel.as_uri()}#sha256={sha256(wheel)}">{wheel.name}</a>\n'
        page.write_text(f"<!DOCTYPE html><html><body>\n{links}</body></html>\n")
        where = {"PIP_FIND_LINKS": str(page)}
        done = self.succeeds("install", "tensorflow==2.0", **where)
        self.assertIn("its wheel has the sha256 that the package index gives", done.stdout)
        self.assertEqual(self.installed(), ["tensorflow==2.0.10"])
        # An index whose sum is not the wheel's.
        page.write_text(page.read_text().replace("#sha256=", "#sha256=00").replace(
            sha256(self.wheels / wheel.name), sha256(self.wheels / wheel.name)[2:]))
        text = self.fails("install", "tensorflow==2.0.9", **where)
        self.assertNotIn("Traceback", text)
        self.assertEqual(self.installed(), ["tensorflow==2.0.10"])
        self.assertEqual(self.leftovers(), [])

    def test_a_pinned_release_is_not_replaced_by_the_index(self):
        package = "tensorflow" if ARCH == "aarch64" else "tensorflow_cpu"
        make_wheel(self.wheels, "2.21.0", python="cp310", package=package)
        text = self.fails("install", "tensorflow==2.21.0", PIP_FIND_LINKS=str(self.wheels))
        self.assertIn("another sum than the one wanted", text)
        self.assertIn("DO NOT MATCH THE HASHES", text)
        self.assertEqual(self.installed(), [])

    def test_a_release_that_nobody_has(self):
        text = self.fails("install", "tensorflow==2.0.9", PIP_FIND_LINKS=str(self.wheels))
        self.assertIn("has no wheel of tensorflow-cpu or", text)
        self.assertIn("--from-wheel", text)

    def test_missing_and_old_clients_are_told_apart(self):
        path = self.folder / "nothing"
        path.mkdir()
        text = self.fails("install", "tensorflow==2.0.9", PATH=str(path))
        self.assertIn("install python3 with pip", text)
        self.assertIn("--from-wheel", text)
        path = self.fake_python("echo 'python3: No module named pip' >&2; exit 1")
        self.assertIn("python3 has no pip", self.fails("install", "tensorflow==2.0.9", PATH=path))
        path = self.fake_python("echo 'no such option: --report' >&2; exit 2")
        text = self.fails("install", "tensorflow==2.0.9", PATH=path)
        self.assertIn("22.2 or later is needed", text)
        self.assertIn("no such option: --report", text)

    def test_an_interrupted_installation_is_swept_by_the_next(self):
        path = self.fake_python("exec sleep 600")
        running = subprocess.Popen(
            [BIN / "vesta", "engine", "install", "tensorflow==2.0.9"], start_new_session=True,
            env=self.environment(PATH=path), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            deadline = time.monotonic() + 30
            while not self.leftovers():
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.02)
            # Reading goes on meanwhile.
            self.assertEqual(self.installed(), [])
        finally:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()
            running.stderr.close()
        self.assertEqual(len(self.leftovers()), 1)
        done = self.succeeds("install", "--from-wheel", make_wheel(self.wheels))
        self.assertIn("removed what an interrupted installation left", done.stderr)
        self.assertEqual(self.leftovers(), [])

    def test_two_installations_at_once(self):
        wheel = make_wheel(self.wheels)
        words = [BIN / "vesta", "engine", "install", "--from-wheel", wheel]
        running = [subprocess.Popen(words, env=self.environment(), stdout=subprocess.PIPE,
                                    stderr=subprocess.DEVNULL, text=True) for _ in range(4)]
        said = [process.communicate(timeout=60)[0] for process in running]
        self.assertEqual([process.returncode for process in running], [0] * 4)
        self.assertEqual(sum(text.startswith("installed ") for text in said), 1, said)
        self.assertEqual(sum("is already installed" in text for text in said), 3, said)

    def test_nobody_reads_a_store_that_cannot_be_written(self):
        self.succeeds("install", "--from-wheel", make_wheel(self.wheels))
        program = self.folder / "vesta"
        shutil.copy(BIN / "vesta", program)
        nobody = {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}
        folders = [self.folder, *(p for p in self.home.rglob("*") if p.is_dir()), self.home]
        for folder in folders:
            folder.chmod(0o555)
        try:
            def run(*words):
                return subprocess.run(
                    [program, "engine", *words], text=True, capture_output=True, check=False,
                    cwd="/", env={"VESTA_HOME": str(self.home), "HOME": "/nonexistent"}, **nobody)
            done = run("list", "--json")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(json.loads(done.stdout)["installed"][0]["version"], "2.0.9")
            done = run("remove", "tensorflow==2.0.9")
            self.assertEqual(done.returncode, 1)
            self.assertIn("set VESTA_HOME to a folder that you can write", done.stderr)
        finally:
            for folder in folders:
                folder.chmod(0o755)

    def test_a_damaged_entry_is_named_and_hides_no_other(self):
        self.succeeds("install", "--from-wheel", make_wheel(self.wheels))
        self.succeeds("install", "--from-wheel", make_wheel(self.wheels, "2.0.10"))
        (self.home / "engines/tensorflow/2.0.10/engine.json").write_text("{")
        done = self.succeeds("list")
        self.assertIn("2.0.9", done.stdout)
        self.assertNotIn("2.0.10", done.stdout)
        self.assertIn("tensorflow==2.0.10 in", done.stderr)
        self.assertIn("`vesta engine install tensorflow==2.0.10`", done.stderr)
        self.succeeds("install", "--from-wheel", make_wheel(self.wheels, "2.0.10"))
        self.assertEqual(len(self.installed()), 2)

    def test_what_is_not_understood_ends_with_2(self):
        for words in ([], ["install"], ["install", "torch"], ["install", "embedded"],
                      ["remove"], ["list", "--yaml"], ["install", "a", "--from-wheel"],
                      ["install", "tensorflow", "openvino", "--sha256", "0" * 64]):
            done = self.vesta(*words)
            self.assertEqual(done.returncode, 2, words)
            self.assertEqual(done.stdout, "", words)
        done = self.vesta("--help")
        self.assertEqual(done.returncode, 0)
        for word in ("install", "list", "remove", "VESTA_HOME"):
            self.assertIn(word, done.stdout)


if __name__ == "__main__":
    unittest.main()
