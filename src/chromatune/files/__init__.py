"""Files and folders that are written atomically, grow line by line, and belong to one run at a time.

atomic.py   a file, or a folder, under a temporary name until it is complete and on the disk
lines.py    JSON lines: appended, a torn last one dropped
claims.py   whose folder it is, and that no second process works in it
own_results.py what results are called, and which files are some
progress.py how long work tells how far it is
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
