# People keep a matplotlibrc (dark figures, LaTeX for text) in their home or working folder. Pictures are to be the same
# bytes for the same numbers. Got once: with axes.facecolor: black the labels of `measure --picture` cannot be read;
# with text.usetex: True and no LaTeX a traceback after everything was measured. Right: the same picture.
set -e; ROOT=${ROOT:-$PWD}; PY=${PY:-$ROOT/.venv/bin/python}; d=$(mktemp -d); cd $d; mkdir dark tex
$PY -c "import numpy as n; r=n.random.default_rng(0); y=n.arange(40)%10; n.savez('d.npz',x_test=r.integers(0,256,(40,8,8),dtype=n.uint8),y_test=y)"
printf 'import torch\nfrom torch import nn\ndef net():\n    torch.manual_seed(0)\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n' > nets.py
run() { $PY -P -m robust_flatness measure --model nets:net --data d.npz --epsilon 0.1 --steps 1 --restarts 1 --samples 1 --set worst.restarts=1 --output o.json --picture $1; }
run plain.png > out 2>&1 || { tail -1 out; exit 2; }
printf 'axes.facecolor: black\nfigure.facecolor: yellow\n' > dark/matplotlibrc; printf 'text.usetex: True\n' > tex/matplotlibrc; bad=0
for k in dark tex; do
  MATPLOTLIBRC=$PWD/$k run $k.png > out 2>&1 || { echo "$k: $(tail -1 out)"; bad=1; continue; }
  cmp -s plain.png $k.png && echo "$k: the same" || { echo "$k: another picture"; bad=1; }
done
exit $bad
