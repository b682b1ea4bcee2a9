import hashlib
from pathlib import Path

import robust_flatness
from robust_flatness.runtime.provenance import source_digest


def test_the_digest_is_of_every_module_of_the_package():
    files = sorted(Path(robust_flatness.__path__[0]).rglob("*.py"))
    assert {"cli.py", "pgd.py", "provenance.py"} <= {path.name for path in files}
    assert source_digest() == hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
