"""Each widget as one ES module without imports, as a page and as anywidget get it."""

import re
import subprocess

import pytest
from playwright._impl._driver import compute_driver_executable

from ndlib.bookwork.widgets import bundle

NODE = compute_driver_executable()[0]


def node(tmp_path, source, *, check=True):
    file = tmp_path / "module.mjs"
    file.write_text(source)
    return subprocess.run([NODE, str(file)], capture_output=True, text=True, check=check)


@pytest.mark.parametrize("name", bundle.names())
def test_bundle_is_one_module_that_renders(tmp_path, name):
    source = bundle.module(name)
    assert not re.search(r"^import\b", source, re.MULTILINE)
    (tmp_path / "widget.mjs").write_text(source)
    # Nothing in it touches a document before it is asked to render.
    probe = 'import widget from "./widget.mjs"; console.log(typeof widget.render);'
    assert node(tmp_path, probe).stdout == "function\n"


def test_bundle_keeps_names_apart_and_workers_as_text(tmp_path, monkeypatch):
    monkeypatch.setattr(bundle, "FOLDER", tmp_path)
    (tmp_path / "a.mjs").write_text("const hidden = 1;\nexport const a = () => hidden;\n")
    (tmp_path / "b.mjs").write_text(
        'import { a } from "./a.mjs";\nconst hidden = 2;\nexport function b() {\n  return hidden + a();\n}\n'
    )
    (tmp_path / "job.mjs").write_text('import {\n  a,\n} from "./a.mjs";\nconsole.log("job", a());\n')
    (tmp_path / "w.mjs").write_text(
        'import { a } from "./a.mjs";\nimport { b } from "./b.mjs";\nimport job from "./job.mjs?text";\n'
        "const hidden = 3;\nconsole.log(a(), b(), hidden);\neval(job);\nexport default {};\n"
    )
    assert bundle.names() == ["w"]
    try:
        assert node(tmp_path, bundle.module("w")).stdout == "1 3 3\njob 1\n"
        (tmp_path / "x.mjs").write_text('import * as everything from "./a.mjs";\nexport default {};\n')
        with pytest.raises(ValueError, match="cannot bundle 'import \\* as everything"):
            bundle.module("x")
    finally:
        bundle.module.cache_clear()
