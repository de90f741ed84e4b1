"""Many photos ⇒ many files: what each result is called, and the outcome of each.

engine.py    tasks in threads, bounded in memory and in computing: under single photos and archives alike
planning.py  photos ⇒ the file of each result, before any is read: `plan_jobs`
photos.py    photos ⇒ these files: `colorize_photos`, an event for each result

An archive is a folder of photos with the folder of their results:

store_protocol.py  what a folder of photos or results offers
remote_folder.py   folders behind URLs
stores.py          folders of this machine; which of the two a name means
archive_worker.py  one photo from its file to its result's, in whatever process; threads that do so
ray_engine.py      the same by processes of Ray
manifest.py        the table of an archive's photos, in its destination, and the names of results
catalog.py         which photos there are, which are to be colorized, and the outcome of each
summary.py         the page
archive.py         all of it: `colorize_archive`, once or as photos arrive
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
