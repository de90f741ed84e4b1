"""Files and folders that are written atomically, grow line by line, belong to one run at a time, or are read ahead.

atomic.py      a file, or a folder, under a temporary name until it is complete and on the disk
regular.py     regular files alone are opened, no pipes or devices
lines.py       JSON lines: appended, a torn last one dropped
run_folder.py  what run a folder belongs to, and that no second process works in it
temporary.py   temporary folders that do not outlive their process by long
read_ahead.py  results of a function, made ahead of their use
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
