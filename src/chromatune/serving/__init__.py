"""The page on which photos are colorized and edited, and an HTTP API for programs.

settings.py       where it listens, who may use it, how much work it accepts
predictor.py      the interface between the app and a predictor
bounded_pool.py   threads with a bounded queue
batcher.py        photos of several threads in one pass of the model
local.py          the predictor of this process, and its sessions
ray_predictor.py  the predictor of a cluster, and its replicas
store.py          sessions and files between requests, bounded in number and age
middleware.py     checks of a request before its body is read, and metrics
responses.py      results and failures as HTTP responses
sessions.py       routes of photos that are edited
batches.py        routes and jobs of many photos
videos.py         routes of videos
video_jobs.py     their files, and the work on them in the background
app.py            all routes over a predictor
run.py            the app on a port, until SIGTERM or Ctrl-C
ray_app.py        the app as a deployment of Ray Serve
page/             the page: HTML, CSS and ES modules without a build step
site.py           the page as static files, with the engine of tab/ in place of the server
tab/              the engine of the page in a browser's tab: the way of a photo in JavaScript, in a worker
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
