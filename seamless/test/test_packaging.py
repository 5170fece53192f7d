"""The package as others meet it: what is installed, what is declared, and whether the documents are true."""

from __future__ import annotations

import ast
import configparser
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Final

from twisted.application.service import IServiceMaker
from twisted.plugin import getPlugins
from twisted.trial.unittest import SynchronousTestCase

import seamless
from seamless.config.load import load_text
from seamless.crypto.keys import encode_public_key, public_key_of
from seamless.tap import Options
from seamless.test.tools.command import seamless as run_seamless
from seamless.test.tools.twistd import ROOT
from seamless.tools.keys import generate_private_key

CHECKOUT: Final = Path(ROOT)

MODULES_OF_DISTRIBUTIONS: Final = {
    "Twisted": "twisted",
    "prometheus-client": "prometheus_client",
    "zope.interface": "zope",
}
"""What is imported under another name than it is installed under."""


def imported_by_the_product() -> Iterator[tuple[str, str]]:
    """Yield (top-level module, importing file) for every import of a seamless module that is no test."""
    for path in sorted((CHECKOUT / "seamless").rglob("*.py")):
        if (CHECKOUT / "seamless" / "test") in path.parents:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield alias.name.partition(".")[0], str(path)
            elif isinstance(node, ast.ImportFrom) and node.module is not None and node.level == 0:
                yield node.module.partition(".")[0], str(path)
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
                yield ast.literal_eval(node.args[0]).partition(".")[0], str(path)


def declared() -> set[str]:
    """Return the modules of install_requires in setup.cfg."""
    setup = configparser.ConfigParser()
    setup.read(CHECKOUT / "setup.cfg")
    lines = setup["options"]["install_requires"].split("\n")
    names = {re.split(r"[ >=]", line, maxsplit=1)[0] for line in lines if line.strip()}
    return {MODULES_OF_DISTRIBUTIONS.get(name, name) for name in names}


class PackageTests(SynchronousTestCase):
    """What an installation brings."""

    def test_twistd_finds_the_plugin(self) -> None:
        makers = [maker for maker in getPlugins(IServiceMaker) if maker.tapname == "seamless"]
        self.assertEqual([maker.options for maker in makers], [Options])

    def test_the_plugin_folder_stays_twisteds(self) -> None:
        self.assertEqual(sorted((CHECKOUT / "twisted").rglob("__init__.py")), [])

    def test_the_command_is_installed(self) -> None:
        (entry,) = [point for point in metadata.entry_points(group="console_scripts") if point.name == "seamless"]
        self.assertEqual(entry.value, "seamless.tools.main:main")
        self.assertEqual(metadata.version("seamless"), seamless.__version__)

    def test_every_import_is_declared(self) -> None:
        known = declared() | set(sys.stdlib_module_names) | {"seamless"}
        undeclared = sorted({item for item in imported_by_the_product() if item[0] not in known})
        self.assertEqual(undeclared, [])

    def test_every_declared_library_is_imported(self) -> None:
        imported = {module for module, _ in imported_by_the_product()}
        self.assertEqual(sorted(declared() - imported), [])

    def test_importing_seamless_is_cheap(self) -> None:
        heavy = "{'twisted', 'txaio', 'asyncio', 'pyparsing', 'cryptography'}"
        program = f"import seamless, sys; print(sorted({heavy} & set(sys.modules)))"
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
        self.assertEqual(done.stdout.strip(), "[]")


class FloorTests(SynchronousTestCase):
    """The import contracts of pyproject.toml notice what they are there for."""

    def lint(self, addition: str, module: str) -> str:
        """Return what lint-imports says of a copy of the tree in which ``module`` has one more line."""
        copy = Path(self.mktemp())
        shutil.copytree(CHECKOUT / "seamless", copy / "seamless", ignore=shutil.ignore_patterns("__pycache__", "test"))
        shutil.copy(CHECKOUT / "pyproject.toml", copy)
        changed = copy / module
        changed.write_text(f"{changed.read_text()}\n{addition}\n")
        program = "from importlinter.cli import lint_imports_command; lint_imports_command()"
        done = subprocess.run(
            [sys.executable, "-c", program, "--no-cache", "--no-logo"],
            cwd=copy,
            env={"PYTHONPATH": str(copy.absolute())},
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        return done.stdout

    def test_a_core_that_reads_the_clock(self) -> None:
        said = self.lint("import time", "seamless/wire/varint.py")
        self.assertIn("seamless.wire is not allowed to import time", said)

    def test_a_floor_that_looks_up(self) -> None:
        said = self.lint("import seamless.linux", "seamless/link/__init__.py")
        self.assertIn("seamless.link is not allowed to import seamless.linux", said)

    def test_siblings(self) -> None:
        said = self.lint("import seamless.session", "seamless/link/__init__.py")
        self.assertIn("seamless.link is not allowed to import seamless.session", said)


class ReadmeTests(SynchronousTestCase):
    """README.rst."""

    def setUp(self) -> None:
        self.text = (CHECKOUT / "README.rst").read_text()

    def test_the_configuration_is_good(self) -> None:
        (block,) = re.findall(r"^    overlay .*?^(?=\S)", self.text, re.MULTILINE | re.DOTALL)
        example, count = re.subn(
            r'"KEY OF \w+"', lambda _: f'"{encode_public_key(public_key_of(generate_private_key()))}"', block
        )
        configuration = load_text(example, "README.rst")
        self.assertEqual((count, len(configuration.nodes), len(configuration.links)), (4, 4, 3))

    def test_its_verbs_exist(self) -> None:
        verbs = set(re.findall(r"^    \(?(?:umask 077; )?seamless (\w+)", self.text, re.MULTILINE))
        self.assertEqual(verbs, {"genkey", "pubkey", "check", "rules", "lab"})
        for verb in sorted(verbs):
            done = run_seamless(verb, "--help")
            self.assertEqual(done.returncode, 0, done.stderr)

    def test_its_files_exist(self) -> None:
        for name in re.findall(r"``((?:docs|script)/[\w.]+)``", self.text):
            self.assertTrue((CHECKOUT / name).exists(), name)
