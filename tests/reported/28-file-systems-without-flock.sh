# Lustre mounted without -o flock, some FUSE and NFS mounts: flock(2) fails with ENOSYS or ENOLCK. (Simulated by a
# sitecustomize.py.) Got: every training ends with "error: run1: Function not implemented; the epochs saved so far are
# kept ...", every measure with "error: [Errno 38] Function not implemented" (no file, no advice): the workflow cannot be
# used on such clusters. Right: a note, and go on without the lock.
ROOT=${ROOT:-$PWD}  # run from the project's root
PY=${PY:-$ROOT/.venv/bin/python}; C=${C:-$ROOT}; d=$(mktemp -d); cd $d; bad=0; export PYTHONPATH=$C/src
mkdir site; cat > site/sitecustomize.py <<'P'
import errno, fcntl
def flock(*_):
    raise OSError(errno.ENOSYS, "Function not implemented")
fcntl.flock = flock
P
RF="$PY -P -m robust_flatness"
$RF spec data --config $C/config/smoke.yaml > data.json; $RF spec train --config $C/config/smoke.yaml > train.json; $RF spec measure --config $C/config/smoke.yaml > m.json
$RF prepare --spec "$(cat data.json)" --output d.safetensors
PYTHONPATH=$d/site:$C/src $RF train --spec "$(cat train.json)" --data d.safetensors --directory run1 || bad=1
$RF train --spec "$(cat train.json)" --data d.safetensors --directory run0
PYTHONPATH=$d/site:$C/src $RF measure-network --spec "$(cat m.json)" --data d.safetensors --directory run0 --seed 0 || bad=1
exit $bad
