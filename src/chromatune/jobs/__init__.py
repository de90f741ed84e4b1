"""Many photos ⇒ many files: what each result is called, and what became of it.

destinations.py  which file each result goes to, decided before any work is done
events.py        what becomes of each
hint_layers.py   what is known of the colors of each photo
run.py           photos through one model to those files, an event for each result and each failure
pipeline.py      reading, the model, and writing at the same time

An archive is a folder of photos with the folder of their results:

stores.py         where photos are read and results written
archive_worker.py one photo from its file to its result's, in whatever process; the seam between engines
remote_folder.py  a folder behind a URL
local_engine.py   jobs through threads of this process
ray_engine.py     jobs through processes of Ray
archive.py        what is to be done and what was done
manifest.py       the table of it, in the destination
result_names.py   what results are called
watch.py          photos as they arrive
summary.py        the page
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
