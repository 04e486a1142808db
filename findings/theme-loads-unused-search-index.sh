#!/usr/bin/env bash
# pydata-sphinx-theme loads the whole search index on every page, for a search as you type that is switched off.
#
# Version    pydata-sphinx-theme 0.17.1 with Sphinx 7.4.7, Python 3.11; themes built on it, such as sphinx-book-theme, too.
# Input      two pages and no option: search_as_you_type is false.
# Expected   searchindex.js on search.html, as with the themes of Sphinx.
# Seen       searchindex.js, searchtools.js and language_data.js in the head of every page, neither deferred nor asynchronous.
#            The theme's own script returns before it looks at them.
# Hurts      readers of large books, on telephones above all: the index grows with the whole book (51 kB compressed in ours,
#            an eighth of its first page), and it is parsed before anything is drawn.
# Instead    take the three scripts out of all pages but search.html when the build is finished.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'pydata-sphinx-theme==0.17.1' 'sphinx==7.4.7'
mkdir "$folder/site"
cat > "$folder/site/conf.py" <<'PY'
project = "two pages"
html_theme = "pydata_sphinx_theme"
PY
printf 'First\n=====\n\n.. toctree::\n\n   second\n' > "$folder/site/index.rst"
printf 'Second\n======\n\nSome words.\n' > "$folder/site/second.rst"
"$folder/venv/bin/sphinx-build" -q "$folder/site" "$folder/html"
for page in index second search; do
  echo "$page.html: $(grep -c 'searchindex\.js' "$folder/html/$page.html" || true) script of the index"
done
grep -q 'search_as_you_type: *false\|search_as_you_type = false' "$folder/html/second.html" && echo "search as you type: off"
grep -q 'searchindex\.js' "$folder/html/second.html"
